"""SIGKILL at any moment: the same command, called again, ends with the same bits; at length: python -m tests.kills."""

import multiprocessing
import os
import random
import sys

import pytest
import torch

import train
from tests import kills
from tests.script_calls import ROOT
from tests.tiny_run import train_flags

FORK = multiprocessing.get_context("fork")  # nothing is imported anew
TRAINER_YAML = """
DATALOADER: {NUM_WORKERS: 1, TRAIN_X: {BATCH_SIZE: 2}, TEST: {BATCH_SIZE: 4}}
INPUT: {SIZE: "(32, 32)", TRANSFORMS: [random_resized_crop, random_flip, normalize]}
OPTIM: {NAME: sgd, LR: 0.1, MAX_EPOCH: 4, LR_SCHEDULER: cosine}
TRAIN: {PRINT_FREQ: 1, RESUME_EVERY_S: 0.02, CHECKPOINT_FREQ: 2}
TEST: {FINAL_MODEL: best_val}
TRAINER: {COOP: {PREC: fp32, N_CTX: 2}, COCOOP: {PREC: fp32, N_CTX: 2}}
"""


@pytest.mark.parametrize("trainer, n_kills", [("CoOp", 3), ("CoCoOp", 1)])
def test_killed_runs_end_as_if_they_had_been_left_alone(tiny_files, tmp_path, trainer, n_kills):
    data, clips = tiny_files
    flags = [*train_flags(tmp_path, data, clips["vit"], yaml=TRAINER_YAML), f"--trainer={trainer}"]

    def call(folder):
        os.setsid()
        torch.set_num_threads(1)  # the threads of the process that was forked are not here
        sys.stdout, sys.stderr = (open(f"{folder}.{kind}", "a", buffering=1) for kind in ("out", "err"))
        keys = ["USE_CUDA", "False", "FEATURES.DIR", f"{folder}/features"]
        sys.exit(train.main([*flags, f"--output-dir={folder}", *keys]))

    def start(folder):
        process = FORK.Process(target=call, args=(folder,))
        process.start()
        return process

    alone_s = kills.finish(start, tmp_path / "alone")
    alone = kills.what_is_left(tmp_path / "alone")
    assert any(name.endswith("ctx") for name in alone) and "results.json" in alone
    rng, n_killed = random.Random(1), 0
    for n in range(n_kills):
        folder = tmp_path / f"killed{n}"
        n_killed += kills.kill_and_call_again(start, folder, rng.uniform(0.1, 0.8) * alone_s)
        assert kills.what_is_left(folder) == alone
        assert not kills.unfinished(folder)
    assert n_killed > 0


def test_the_long_command_knows_a_difference_when_it_sees_one(tmp_path, monkeypatch, capsys):
    """On a command that counts how often it was called, and takes its time."""
    program = 'mkdir -p "$OUTPUT"; echo x >> "$OUTPUT/calls"; sleep {}; [[ -s $OUTPUT/results.json ]] || {}'
    count = 'echo "{\\"accuracy\\": $(wc -l < "$OUTPUT/calls")}" > "$OUTPUT/results.json"'
    same = 'echo "{\\"accuracy\\": 1, \\"cost\\": {\\"s\\": $RANDOM}}" > "$OUTPUT/results.json"'
    commands = {"counts": program.replace("{}", "0.3", 1).replace("{}", count)}
    commands["same"] = program.replace("{}", "0.3", 1).replace("{}", same)
    monkeypatch.setattr(kills, "COMMANDS", commands)
    monkeypatch.chdir(ROOT)
    assert kills.main(["--kills", "2", "--cases", "same"]) == 0
    assert capsys.readouterr().out.endswith("2 of 2 end as if they had been left alone.\n")
    assert kills.main(["--kills", "2", "--cases", "counts", "same"]) == 1
    printed = capsys.readouterr().out
    assert "kill   1 of counts" in printed and printed.count("NOT THE SAME") == 1
    assert printed.endswith("1 of 2 end as if they had been left alone.\n")
