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
    for place, accuracy in _runs(output / folder, accuracies):
        place.mkdir(parents=True, exist_ok=True)
        (place / "results.json").write_text(json.dumps({"accuracy": accuracy, **more}))


def write_logs(output, folder, accuracies, log=LOG):
    """log.txt of each seed, and no results.json."""
    for place, accuracy in _runs(output / folder, accuracies):
        place.mkdir(parents=True, exist_ok=True)
        (place / "log.txt").write_text(log.format(accuracy=accuracy))


def _runs(folder, accuracies):
    if not isinstance(accuracies, dict):
        return [(folder, accuracies)]
    return [(folder / f"seed{seed}", accuracy) for seed, accuracy in accuracies.items()]
