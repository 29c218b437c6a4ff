"""The names of a run's files. No import: who only reads results needs no torch."""

CONFIG, RESULTS, LOG, CLASSES = "config.yaml", "results.json", "log.txt", "classes.json"
