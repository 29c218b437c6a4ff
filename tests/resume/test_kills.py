"""SIGKILL at any moment: the same command, called again, ends with the same bits. At length: tests/resume/kills.py."""

import itertools
import multiprocessing
import os
import random
import sys
from pathlib import Path

import pytest
import torch

import train
from tests.resume import kills
from tests.support.script_calls import ROOT
from tests.support.tiny_run import train_flags


class Forked(multiprocessing.get_context("fork").Process):
    """A process in which nothing is imported anew, with what subprocess.Popen has and is asked for."""

    def poll(self):
        return self.exitcode

    def wait(self):
        self.join()
        return self.exitcode


TRAINER_YAML = """
DATALOADER: {NUM_WORKERS: 1, TRAIN_X: {BATCH_SIZE: 2}, TEST: {BATCH_SIZE: 4}}
INPUT: {SIZE: "(32, 32)", TRANSFORMS: [random_resized_crop, random_flip, normalize]}
OPTIM: {NAME: sgd, LR: 0.1, MAX_EPOCH: 3, LR_SCHEDULER: cosine}
TRAIN: {PRINT_FREQ: 1, RESUME_EVERY_S: 0.02, CHECKPOINT_FREQ: 2}
TEST: {FINAL_MODEL: best_val}
TRAINER: {COOP: {PREC: fp32, N_CTX: 2}, COCOOP: {PREC: fp32, N_CTX: 2}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("trainer, n_kills", [("CoOp", 2), ("CoCoOp", 1)])
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
        process = Forked(target=call, args=(folder,))
        process.start()
        return process

    alone_s = kills.finish(start, tmp_path / "alone")
    alone = kills.what_is_left(tmp_path / "alone")
    assert any(name.endswith("ctx") for name in alone) and "results.json" in alone
    times_s = kills.run_times_s(tmp_path / "alone")
    assert list(times_s) == [Path(".")] and 0 < times_s[Path(".")] < alone_s
    assert kinds_of_phases(tmp_path / "alone") == [kills.TRAINING, kills.BETWEEN] * 3 + [kills.TEST]
    rng, n_killed = random.Random(1), 0
    for n in range(10 * n_kills):
        folder, since = tmp_path / f"killed{n}", Path(".")
        met = kills.kill_and_call_again(start, folder, list(times_s), rng.uniform(0, 0.8) * times_s[since], since)
        assert kills.what_is_left(folder) == alone
        assert not kills.unfinished(folder)
        n_killed += bool(met)  # one that had ended before does not count
        assert kills.BEFORE not in met
        if n_killed == n_kills:
            break
    assert n_killed == n_kills


def kinds_of_phases(folder):
    """The phases that a run has gone through, as they are read from the beginnings of its log."""
    lines, kinds = (folder / "log.txt").read_text().splitlines(keepends=True), []
    copy = folder.with_name("copy")
    copy.mkdir()
    (copy / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    for n_lines in range(len(lines) + 1):
        (copy / "log.txt").write_text("".join(lines[:n_lines]))
        kinds.append(kills.phase(copy).split(" in epoch")[0])
    return [kind for kind, _ in itertools.groupby(kinds)]


@pytest.mark.slow
def test_the_long_command_knows_a_difference_when_it_sees_one(tmp_path, monkeypatch, capsys):
    """On a command that counts how often it was called, and takes its time."""
    begin = 'mkdir -p "$OUTPUT"; cd "$OUTPUT"; echo x >> calls; touch log.txt config.yaml'
    count = 'echo "{\\"accuracy\\": $(wc -l < calls)}" > results.json'
    same = 'echo "{\\"accuracy\\": 1, \\"cost\\": {\\"s\\": $RANDOM}}" > results.json'
    commands = {
        name: f"{begin}; sleep 1; [[ -s results.json ]] || {end}" for name, end in (("counts", count), ("same", same))
    }
    monkeypatch.setattr(kills, "COMMANDS", commands)
    monkeypatch.setattr(kills, "draw_moment", lambda *_: (0.0, Path(".")))
    monkeypatch.chdir(ROOT)
    assert kills.main(["--kills", "2", "--cases", "same"]) == 0
    printed = capsys.readouterr().out
    assert "   2 training\n" in printed and "   0 the test\n" in printed
    assert printed.endswith("2 of 2 end as if they had been left alone.\n")
    assert kills.main(["--kills", "2", "--cases", "counts", "same"]) == 1
    printed = capsys.readouterr().out
    assert "kill   1 of counts" in printed and printed.count("NOT THE SAME") == 1
    assert printed.endswith("1 of 2 end as if they had been left alone.\n")
