"""Output folders with made-up results, in the project's format and in the original's."""

import json

LOG = """Loading CLIP (backbone: RN50)
epoch [50/50] batch [50/50] loss 0.1234
Finish training
Do evaluation on test set
=> result
* total: 2,465
* correct: 2,268
* accuracy: {accuracy}%
* error: 7.99%
* macro_f1: 91.20%
"""
TEST_LOG = """Loading CLIP (backbone: RN50)
=> result
* total: 2,465
* accuracy: {accuracy}%
"""
CUT_LOG = """Loading CLIP (backbone: RN50)
epoch [3/50] batch [5/50] loss 1.2345
"""


def write_results(output, folder, accuracies, **more):
    """results.json of each seed: accuracies as {seed: accuracy}; a number: a single run."""
    for run, accuracy in _runs(output / folder, accuracies):
        run.mkdir(parents=True, exist_ok=True)
        (run / "results.json").write_text(json.dumps({"accuracy": accuracy, **more}))


def write_logs(output, folder, accuracies, log=LOG):
    """log.txt of each seed, and no results.json."""
    for run, accuracy in _runs(output / folder, accuracies):
        run.mkdir(parents=True, exist_ok=True)
        (run / "log.txt").write_text(log.format(accuracy=accuracy))


def write_words(output, folder, word, seed=1):
    """What interpret_prompt.py writes of a seed, for its first context vector."""
    run = output / folder / f"seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    vectors = [{"vector": 1, "words": [{"word": word, "token": 7, "distance": 1.0}]}]
    (run / "nearest_words.json").write_text(json.dumps({"vectors": vectors}))


def _runs(folder, accuracies):
    if not isinstance(accuracies, dict):
        return [(folder, accuracies)]
    return [(folder / f"seed{seed}", accuracy) for seed, accuracy in accuracies.items()]
