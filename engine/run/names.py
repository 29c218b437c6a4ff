"""The names of a run's files. No import: who only reads results needs no torch."""

CONFIG, RESULTS, LOG = "config.yaml", "results.json", "log.txt"
