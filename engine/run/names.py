"""The names of a run's files and columns. No import: who only reads results needs no torch."""

CONFIG, RESULTS, LOG, CLASSES = "config.yaml", "results.json", "log.txt", "classes.json"
PREDICTIONS, LOGITS, SCALARS = "predictions.csv", "logits.npz", "scalars.csv"
CONFUSION, CONFUSION_TABLE, CONFUSION_PICTURE = "cmat.pt", "cmat.csv", "cmat.png"
PREDICTION_COLUMNS = ("path", "true", "prediction", "probability", "second", "second_probability", "rank")
