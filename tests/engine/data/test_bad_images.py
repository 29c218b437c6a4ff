"""INPUT.ON_BAD_IMAGE and TEST.ON_BAD_IMAGE: an error that names the file, or a run without it that says so."""

import errno
from pathlib import Path

import pytest
import torch

from engine import DatasetBase, Datum, load_checkpoint
from engine.data import bad_images
from engine.data.bad_images import find_bad, leave_out_bad, log_skipped, skipped_fields
from engine.data.image_io import BrokenImageError
from engine.distributed import process_group
from tests.support.ranks import run_ranks
from tests.support.small_copies import small_copy
from tests.support.tiny_run import CLASSES, N_ITEMS, build_trainer, own_warnings, run_train, tiny_cfg, write_images

SKIP, SKIP_TEST = ("INPUT.ON_BAD_IMAGE", "skip"), ("TEST.ON_BAD_IMAGE", "skip")
METHODS = {
    "CoOp": (),
    "CoOp, views": ("INPUT.VIEWS", 2),
    "CoCoOp": ("TRAINER.NAME", "CoCoOp", "TRAINER.COCOOP.PREC", "fp32", "TRAINER.COCOOP.N_CTX", 2),
    "LinearProbe": ("TRAINER.NAME", "LinearProbe", "TRAINER.LINEAR_PROBE.PREC", "fp32"),
    "ZeroshotCLIP": ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True),
}


@pytest.fixture
def data(tmp_path):
    """The tiny folder, which the test may break."""
    return write_images(tmp_path / "data")


@pytest.fixture
def cfg(data, tiny_files, tmp_path):
    """Makes the config of a run in tmp_path/FOLDER; KEY, VALUE, ... change it."""
    return lambda *pairs, folder="run", data=data: tiny_cfg(data, tiny_files[1]["vit"], tmp_path / folder, *pairs)


def break_images(*paths):
    """Cuts the first image, empties the second, makes a text of the third; and so on."""
    for i, path in enumerate(paths):
        path.write_bytes((path.read_bytes()[:-60], b"", b"no image")[i % 3])
    return [str(path) for path in paths]


def do_run(cfg):
    """Calls train.py's `run`; returns what results.json and log.txt hold."""
    return run_train(cfg), Path(cfg.OUTPUT_DIR, "log.txt").read_text()


def states_equal(path, folder):
    """Whether a checkpoint of the run and that of the run on the copy hold the same bits."""
    found, expected = (
        load_checkpoint(file)["state_dict"] for file in (path, folder / "copy run" / path.relative_to(folder / "run"))
    )
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


class TestErrors:
    """What is not skipped ends the run, with the file's name."""

    @pytest.mark.parametrize(
        ("split", "pairs"), [("train", ()), ("test", ()), ("test", SKIP), ("train", SKIP_TEST)], ids=str
    )
    def test_each_key_is_for_its_own_images(self, data, cfg, split, pairs):
        (bad,) = break_images(data / split / "face" / "1.png")
        with pytest.raises(ValueError, match=f"Image {bad} does not decode"):
            do_run(cfg(*pairs))

    @pytest.mark.parametrize(("split", "what"), [("train", "training"), ("test", "test")])
    def test_some_have_to_be_left(self, data, cfg, split, what):
        break_images(*(data / split).rglob("*.png"))
        message = rf"None of the {3 * N_ITEMS[split]} {what} image\(s\) of Folder can be read\. Replace"
        with pytest.raises(ValueError, match=message):
            build_trainer(cfg(*SKIP, *SKIP_TEST))

    def test_a_linear_probe_needs_an_image_of_each_class(self, data, cfg):
        break_images(*(data / "train" / "leopard").iterdir())
        message = r"Folder has 1 class\(es\) without a training image, which a linear probe .* Replace"
        with pytest.raises(ValueError, match=message):
            build_trainer(cfg(*METHODS["LinearProbe"], *SKIP))

    @pytest.mark.parametrize("fault", [MemoryError(), OSError(errno.EIO, "Input/output error")])
    def test_what_may_be_the_machines_fault_is_not_skipped(self, cfg, monkeypatch, fault):
        def read(path):
            raise BrokenImageError(f"Image {path} does not decode") from fault

        monkeypatch.setattr(bad_images, "read_image", read)
        with pytest.raises(BrokenImageError, match="^Image .*0.png does not decode$"):
            build_trainer(cfg(*SKIP))


class TestSkip:
    @pytest.mark.parametrize(("seed", "subset"), [(1, "all"), (2, "base"), (3, "new")])
    def test_a_seed_draws_the_same_items(self, data, cfg, seed, subset):
        pairs = ("DATASET.NUM_SHOTS", 2, "SEED", seed, "DATASET.SUBSAMPLE_CLASSES", subset)
        whole = build_trainer(cfg(*pairs)).dm.dataset
        bad = break_images(*(data / "train" / name / f"{i}.png" for i in (0, 2) for name in CLASSES))
        dataset = build_trainer(cfg(*pairs, *SKIP)).dm.dataset
        for split in ("train_x", "val", "test", "selection"):
            drawn = getattr(whole, split)
            assert getattr(dataset, split) == [item for item in drawn if item.impath not in bad]
        assert dataset.classnames == whole.classnames

    @pytest.mark.parametrize("method", METHODS)
    def test_the_run_is_that_of_a_data_set_without_them(self, data, cfg, tmp_path, method):
        """Of a copy that never had these images, where no key is set: parameters and results are equal."""
        bad, copy = {}, write_images(tmp_path / "copy")
        for split, key in (("train", "train_x"), ("test", "test")):
            names = [f"{split}/{classname}/1.png" for classname in CLASSES[:2]]
            bad[key] = break_images(*(data / name for name in names))
            for name in names:
                (copy / name).unlink()
        expected, _ = do_run(cfg(*METHODS[method], folder="copy run", data=copy))
        found, log = do_run(cfg(*METHODS[method], *SKIP, *SKIP_TEST))
        if method == "ZeroshotCLIP":
            del bad["train_x"]  # which it does not read
        assert "skipped_images" not in expected
        assert found["skipped_images"] == {key: {"number": 2, "paths": paths} for key, paths in bad.items()}
        assert all(f"Skip: Image {path} " in log for paths in bad.values() for path in paths)
        assert found["total"] == 3 * N_ITEMS["test"] - 2
        for measure in ("accuracy", "total", "macro_f1"):
            assert found[measure] == expected[measure]
        assert [states_equal(path, tmp_path) for path in (tmp_path / "run").rglob("model*.pth.tar*")] == [True] * (
            method != "ZeroshotCLIP"
        )

    def test_the_log_and_the_results_say_what_was_skipped(self, data, cfg):
        bad = break_images(*sorted((data / "train" / "leopard").iterdir()))  # all images of a class
        results, log = do_run(cfg(*SKIP))
        assert results["skipped_images"] == {"train_x": {"number": 4, "paths": bad}}
        warning = own_warnings(results)[0]
        assert warning == "4 training image(s) could not be read and were skipped"
        assert results["total"] == 3 * N_ITEMS["test"]
        first, last = log.split("Finish training")
        assert all(f"Skip: Image {path} does not decode" in first for path in bad)
        assert "4 of 12 training images of Folder are bad and left out" in first
        assert "1 class(es) of Folder are left without a training image: leopard" in first
        assert "Skipped training images: 4\n  " + "\n  ".join(bad) in last
        assert f"Warning: {warning}" in last

    def test_missing_files_count_too(self, data, cfg, monkeypatch, tmp_path):
        small_copy("caltech101", monkeypatch).lay_out(tmp_path / "root")
        pairs = ("DATASET.NAME", "Caltech101", "DATASET.NUM_SHOTS", 2)
        drawn = build_trainer(cfg(*pairs, data=tmp_path / "root")).dm.dataset.train_x
        Path(drawn[3].impath).unlink()
        with pytest.raises(FileNotFoundError, match=r"Caltech101 lacks 1 image\(s\)"):
            build_trainer(cfg(*pairs, data=tmp_path / "root"))
        manager = build_trainer(cfg(*pairs, *SKIP, data=tmp_path / "root")).dm
        assert manager.dataset.train_x == [*drawn[:3], *drawn[4:]]
        assert manager.skipped == {"train_x": [drawn[3].impath]}

    def test_only_what_is_read_is_looked_at(self, data, cfg):
        for split in ("train", "val"):
            break_images(data / split / "face" / "1.png")
        trainer = build_trainer(cfg(*METHODS["ZeroshotCLIP"], *SKIP, *SKIP_TEST))
        assert trainer.dm.skipped == {"selection": [str(data / "val/face/1.png")]}  # the temperature is fitted on these
        assert len(trainer.dm.dataset.train_x) == 3 * N_ITEMS["train"]
        break_images(data / "test" / "face" / "1.png")
        assert build_trainer(cfg(*SKIP_TEST, "TEST.NO_TEST", True)).dm.skipped == {}

    @pytest.mark.parametrize(("tested", "pairs"), [(False, SKIP), (True, SKIP_TEST)])
    def test_validation_images_that_are_tested_are_test_images(self, data, cfg, tested, pairs):
        (bad,) = break_images(data / "val" / "face" / "1.png")
        pairs = (*pairs, "TEST.SPLIT", "val" if tested else "test")
        assert build_trainer(cfg(*pairs)).dm.skipped == {"val": [bad]}
        other = SKIP_TEST if pairs[0] == SKIP[0] else SKIP
        assert "val" not in build_trainer(cfg(*other, *pairs[2:])).dm.skipped

    def test_so_are_those_of_a_data_set_that_validates_on_its_test_images(self, data, cfg):
        class Same(DatasetBase):
            def __init__(self):
                test = [Datum(str(path)) for path in sorted(data.glob("test/face/*.png"))]
                super().__init__([Datum(str(data / "train/face/0.png"))], val=test, test=test, selection=[])

        bad = break_images(*sorted(data.glob("test/face/*.png"))[:1])
        assert leave_out_bad(cfg(*SKIP), Same(), n_threads=1) == {}
        assert leave_out_bad(cfg(*SKIP_TEST), dataset := Same(), n_threads=1) == {"val": bad, "test": bad}
        assert len(dataset.val) == len(dataset.test) == 2


def test_every_rank_leaves_out_the_same_each_having_decoded_its_share(data, cfg, tmp_path):
    run = cfg(*SKIP)
    bad = break_images(*(data / "train" / name for name in ("face/0.png", "face/1.png", "leopard/3.png")))
    bad.append(str(data / "train" / "wine_bottle" / "3.png"))  # on one machine only

    def work(rank):
        def find(paths, n_threads):
            n_decoded.append(len(paths))
            return find_bad(paths, n_threads) | {path: OSError("gone") for path in bad[3:] if path in paths}

        n_decoded, bad_images.find_bad = [], find
        with process_group(use_cuda=False):
            manager = build_trainer(run).dm
        return [item.impath for item in manager.dataset.train_x], manager.skipped, n_decoded

    (code_0, first), (code_1, second) = run_ranks(2, work, tmp_path / "ranks")
    assert (code_0, code_1) == (0, 0) and first == second
    left, skipped, n_decoded = first
    assert skipped == {"train_x": bad} and n_decoded == [(12 + 6) / 2]
    assert len(left) == 12 - 4 and not set(left) & set(bad)


def test_threads_find_what_one_finds_and_errors_hold_no_image(data):
    paths = sorted(data.rglob("*.png"))
    bad = break_images(*paths[:3], *paths[9:12])
    paths = [str(path) for path in paths]
    found = [find_bad(paths, n_threads) for n_threads in (0, 1, 4)]
    assert all(list(errors) == bad for errors in found)
    for error in found[0].values():  # frames would keep what was decoded
        assert error.__traceback__ is None and error.__cause__.__traceback__ is None


def test_long_lists_are_cut(caplog):
    skipped = {"test": [f"{i}.jpg" for i in range(1234)]}
    listed = skipped_fields(skipped)["skipped_images"]["test"]
    assert (listed["number"], listed["paths"]) == (1234, skipped["test"][:100])
    with caplog.at_level("INFO", logger="engine"):
        log_skipped(skipped)
    assert caplog.text.count(".jpg") == 100
    assert "Skipped test images: 1,234" in caplog.text and "... and 1,134 more" in caplog.text
