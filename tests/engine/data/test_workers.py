"""Processes that load images: started once for what is used again, and ended with the run however it ends."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import train
from engine.data import manager
from engine.features import reader
from engine.interruption import leave_signals_to_parent
from engine.trainer import TrainerX
from inference.classifier import Classifier
from inference.predictions import File, predict
from tests.support.tiny_run import run_train, tiny_cfg
from tests.support.tolerance import assert_near


@pytest.fixture
def started(monkeypatch, tmp_path):
    """started(): the process ids of the loaders' processes that have been started, in their order."""
    path = tmp_path / "started"
    path.touch()

    def note(number):
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        leave_signals_to_parent(number)

    for module in (manager, reader):
        monkeypatch.setattr(module, "leave_signals_to_parent", note)
    monkeypatch.setattr(manager, "n_cores", lambda: 2)
    return lambda: [int(line) for line in path.read_text().split()]


@pytest.fixture
def cfg(tiny_files, tmp_path):
    """cfg(KEY, VALUE, ...): three epochs of a method that sees pixels, two processes for each loader."""

    def build(*pairs, name="run"):
        own = ("TRAINER.NAME", "VPT", "TRAINER.VPT.PREC", "fp32", "DATALOADER.NUM_WORKERS", 2, "OPTIM.MAX_EPOCH", 3)
        own += ("TRAINER.VPT.PROMPT_DEPTH_VISION", 1, "TEST.TEMPERATURE", False)
        return tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / name, *own, *pairs)

    return build


def are_gone(pids):
    """Whether no process has these ids, now and not at some later time."""
    assert pids and not multiprocessing.active_children()
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.parametrize(("final_model", "n_loaders"), [("last_step", 2), ("best_val", 3), ("best_test", 2)])
def test_an_epoch_starts_none_and_a_run_leaves_none(cfg, started, final_model, n_loaders):
    """One loader of training images; one of each split that is tested, however often."""
    results = run_train(cfg("TEST.FINAL_MODEL", final_model, "TEST.ALLOW_ORACLE", True))
    assert results["total"] == 9 and len(started()) == 2 * n_loaders
    assert are_gone(started())


def test_runs_of_one_process_leave_none_to_the_next(argv, started, tmp_path):
    for seed in (1, 2):
        pairs = ("SEED", str(seed), "DATALOADER.NUM_WORKERS", "2", "TEST.FINAL_MODEL", "best_val")
        assert train.main(argv(f"seed{seed}", *pairs)) == 0
        assert are_gone(started())


@pytest.mark.parametrize("end", ["error", "signal"])
def test_a_run_that_does_not_end_well_leaves_none(argv, started, monkeypatch, end):
    def act(self):
        if len(started()) == 2:
            if end == "error":
                raise ValueError("Something is wrong.")
            os.kill(os.getpid(), signal.SIGTERM)
        save_if_due(self)

    save_if_due = TrainerX.save_if_due
    monkeypatch.setattr(TrainerX, "save_if_due", act)
    assert train.main(argv("run", "DATALOADER.NUM_WORKERS", "2")) == {"error": 1, "signal": 143}[end]
    assert are_gone(started())


def test_images_to_predict_are_loaded_by_the_same_processes(cfg, tiny_files, started, tmp_path, monkeypatch):
    run_train(cfg("TRAINER.NAME", "CoOp", "OPTIM.MAX_EPOCH", 1, "FEATURES.DIR", "", "DATALOADER.TEST.BATCH_SIZE", 1))
    before, classifier = started(), Classifier.from_run(tmp_path / "run")
    paths = sorted(str(path) for path in (tiny_files[0] / "train").rglob("*.png"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    files = [File(path) for path in [*paths[:7], str(broken), *paths[7:]]]  # four at once
    expected = [classifier([path]).names[0] for path in paths]
    found = list(predict(classifier, files))
    assert [answer.label for answer in found if not answer.error] == expected
    assert [answer.file.path for answer in found if answer.error] == [str(broken)]
    assert len(started()) - len(before) == 2 and are_gone(started())


def test_a_broken_file_is_answered_with_an_error_each_time(cfg, tiny_files, started, tmp_path):
    """It stands behind another one in a batch of the first process, which reads that one anew right after the error."""
    run_train(cfg("TRAINER.NAME", "CoOp", "OPTIM.MAX_EPOCH", 1, "FEATURES.DIR", "", "DATALOADER.TEST.BATCH_SIZE", 2))
    classifier = Classifier.from_run(tmp_path / "run")
    first, *others = sorted(str(path) for path in (tiny_files[0] / "train").rglob("*.png"))[:3]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    files = [File(path) for path in (first, str(broken), *others)]
    for _ in range(2):
        assert [bool(answer.error) for answer in predict(classifier, files)] == [False, True, False, False]


def test_another_thread_that_reads_meanwhile_has_processes_of_its_own(cfg, tiny_files, started, tmp_path, monkeypatch):
    run_train(cfg("TRAINER.NAME", "CoOp", "OPTIM.MAX_EPOCH", 1, "FEATURES.DIR", "", "DATALOADER.TEST.BATCH_SIZE", 1))
    before, classifier = started(), Classifier.from_run(tmp_path / "run")
    paths = sorted(str(path) for path in (tiny_files[0] / "train").rglob("*.png"))
    expected = torch.cat([classifier.image_features(path) for path in paths])
    reader, encode, found = classifier.trainer.features, classifier.trainer.features.encode, []

    def interrupted(images):
        if not found:
            found.append(None)
            with ThreadPoolExecutor(1) as pool:
                found[0] = pool.submit(classifier.image_features, paths[::-1]).result()
        return encode(images)

    monkeypatch.setattr(reader, "encode", interrupted)
    with classifier.loading():
        own = classifier.image_features(paths)
    assert_near(own, expected)
    assert_near(found[0], expected.flip(0))
    assert len(started()) - len(before) == 4 and are_gone(started())
