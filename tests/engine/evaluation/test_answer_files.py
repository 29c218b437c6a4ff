"""predictions.csv, logits.npz, cmat.csv and cmat.png of a run, and the temperature in its results."""

import csv
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets.folder import Folder
from engine import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY
from engine.config.defaults import get_cfg_default
from engine.evaluation.answers import answers_of
from engine.evaluation.confusion import confusion_counts, most_confused, write_table
from engine.evaluation.confusion_picture import draw_confusion
from engine.evaluation.evaluator import Classification, evaluate
from engine.evaluation.predictions import path_under, write_predictions
from engine.run.names import PREDICTION_COLUMNS
from tests.support.tiny_run import CLASSES, build_trainer, own_warnings, run_train, tiny_cfg, write_images
from trainers.coop import CoOp
from trainers.zsclip import ZeroshotCLIP


@pytest.fixture
def do_run(tiny_files, tmp_path):
    """do_run(KEY, VALUE, ...) gives the results of a run in tmp_path/run and the rows of its predictions, if any."""

    def do_run(*pairs, data=tiny_files[0]):
        keys = ("FEATURES.DIR", "", "OPTIM.MAX_EPOCH", 1, *pairs)
        results = run_train(tiny_cfg(data, tiny_files[1]["vit"], tmp_path / "run", *keys))
        return results, read_rows(tmp_path / "run")

    return do_run


def read_rows(folder):
    path = folder / "predictions.csv"
    with path.open(encoding="utf-8", newline="") if path.exists() else open(os.devnull) as stream:
        return list(csv.DictReader(stream))


def log_of(folder):
    return (folder / "run/log.txt").read_text()


class TestPredictions:
    def test_each_row_says_what_the_logits_say_of_its_image(self, do_run, tiny_files, tmp_path):
        results, rows = do_run("TEST.SAVE_LOGITS", True)

        stored = np.load(tmp_path / "run/logits.npz")
        assert tuple(rows[0]) == PREDICTION_COLUMNS
        paths = [path.relative_to(tiny_files[0]).as_posix() for path in sorted(tiny_files[0].glob("test/*/*.png"))]
        assert [row["path"] for row in rows] == stored["paths"].tolist() == paths
        assert stored["logits"].shape == (9, 3) and stored["logits"].dtype == np.float32
        assert stored["labels"].dtype == np.int64
        for row, logits, label in zip(rows, stored["logits"], stored["labels"], strict=True):
            p = torch.from_numpy(logits).double().softmax(dim=0)
            first, second, _ = p.argsort(descending=True).tolist()
            assert row["path"].split("/")[1] == row["true"] == CLASSES[label]
            assert (row["prediction"], row["second"]) == (CLASSES[first], CLASSES[second])
            assert (row["probability"], row["second_probability"]) == (f"{p[first]:.6f}", f"{p[second]:.6f}")
            assert int(row["rank"]) == 1 + (p > p[label]).sum()
        assert sum(row["rank"] == "1" for row in rows) == results["correct"]

    def test_they_are_of_the_model_and_the_items_of_the_final_test(self, do_run, tiny_files, tmp_path):
        """Not of the last validation, and in a shuffled order as they are in any other."""
        _, rows = do_run(
            "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", 2, "DATALOADER.TEST.SAMPLER", "RandomSampler"
        )

        assert [row["path"] for row in rows] != sorted(row["path"] for row in rows)
        assert all(row["path"].split("/")[:2] == ["test", row["true"]] for row in rows)
        trainer = build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "again"))
        trainer.load_model(tmp_path / "run")
        logits = torch.cat([batch for batch, _ in trainer.predictions("test")])
        expected = dict(
            zip(sorted(row["path"] for row in rows), logits.softmax(dim=1).amax(dim=1).tolist(), strict=True)
        )
        assert {row["path"]: float(row["probability"]) for row in rows} == pytest.approx(expected, abs=1e-5)

    def test_validation_items_where_these_are_tested_on(self, do_run):
        results, rows = do_run("TEST.SPLIT", "val")
        assert len(rows) == 6 and all(row["path"].startswith("val/") for row in rows)
        assert results["temperature"] is None  # the selection items are the validation items

    @pytest.mark.parametrize("pairs", [("TEST.SAVE_PREDICTIONS", False), ("TEST.NO_TEST", True)])
    def test_none_are_left_where_none_are_wanted_nor_those_of_an_earlier_test(self, do_run, tmp_path, pairs):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/predictions.csv").write_text("of another model")
        do_run(*pairs)
        assert not (tmp_path / "run/predictions.csv").exists()

    def test_a_loader_of_the_methods_own_has_an_unknown_order(self, do_run, tmp_path, register):
        class Own(CoOp):
            def build_data_loader(self):
                super().build_data_loader()
                self.test_loader = DataLoader(self.test_loader.dataset, batch_size=4, shuffle=True)

        register(TRAINER_REGISTRY, Own)
        results, rows = do_run("TRAINER.NAME", "Own")
        assert results["total"] == 9 and not rows
        assert "Not written: predictions.csv, since the order of Own's own loader" in log_of(tmp_path)

    def test_a_method_that_tests_other_items_is_noticed(self, do_run, tmp_path, register):
        class Some(ZeroshotCLIP):
            def predictions(self, split):
                yield from list(super().predictions(split))[::-1]

        register(TRAINER_REGISTRY, Some)
        _, rows = do_run("TRAINER.NAME", "Some", "RUN.EVAL_ONLY", True)
        assert not rows
        assert "Not written: predictions.csv, since the labels that Some has tested on are not" in log_of(tmp_path)

    def test_an_evaluator_of_ones_own_keeps_no_answers(self, do_run, tmp_path, register):
        class Counts:
            def __init__(self, cfg, lab2cname):
                pass

            def reset(self):
                self.n = 0

            def process(self, logits, labels):
                self.n += len(labels)

            def evaluate(self):
                return {"accuracy": 50.0, "n": self.n}

        register(EVALUATOR_REGISTRY, Counts)
        results, rows = do_run("TEST.EVALUATOR", "Counts", "TEST.COMPUTE_CMAT", True)
        assert (results["n"], results["nll"], rows) == (9, None, [])
        said = "Not written: predictions.csv, cmat.csv, cmat.png. The evaluator Counts keeps no answers."
        assert said in log_of(tmp_path)

    def test_names_that_are_no_plain_text_come_back(self, tmp_path):
        names = {0: 'a, "b"', 1: "two\r\nlines\r", 2: "caf\u00e9"}
        answers = answers_of(torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 9.0]]), torch.tensor([1, 2]))
        write_predictions(tmp_path / "predictions.csv", answers, ["a\udce9.png", "b\r.png"], names)
        first, second = read_rows(tmp_path)
        assert first["path"] == "a\\udce9.png" and second["path"] == "b\r.png"
        assert (first["true"], first["prediction"], first["rank"]) == ("two\r\nlines\r", 'a, "b"', "2")
        assert (second["prediction"], second["second"]) == ("output 3", "caf\u00e9")

    def test_a_single_class_has_no_second(self, tmp_path):
        answers = answers_of(torch.zeros(1, 1), torch.tensor([0]))
        write_predictions(tmp_path / "predictions.csv", answers, ["a.png"], {0: "a"})
        assert list(read_rows(tmp_path)[0].values()) == ["a.png", "a", "a", "1.000000", "", "", "1"]

    @pytest.mark.parametrize(
        ("root", "path", "expected"),
        [("/d", "/d/a/b.png", "a/b.png"), ("/d/", "/e/b.png", "/e/b.png"), ("", "/d/b.png", "/d/b.png")],
    )
    def test_paths_are_relative_to_the_root(self, root, path, expected):
        assert path_under(root, path) == expected


class TestTemperatureOfARun:
    def test_it_lowers_the_nll_of_the_selection_as_no_other_does(self, do_run, tmp_path, tiny_files):
        results, _ = do_run("OPTIM.LR", 0.002)
        assert "Temperature: " in log_of(tmp_path) and "fitted on 6 items" in log_of(tmp_path)
        trainer = build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "again"))
        trainer.load_model(tmp_path / "run", epoch=1)
        logits, labels = (torch.cat(part) for part in zip(*trainer.predictions("val")))  # here the selection items
        nll = [
            torch.nn.functional.cross_entropy(logits.double() / (factor * results["temperature"]), labels).item()
            for factor in (0.98, 1.0, 1.02)
        ]
        assert nll[1] < min(nll[0], nll[2])

    def test_without_it_nothing_else_differs(self, do_run, tmp_path):
        results, rows = do_run()
        os.rename(tmp_path / "run", tmp_path / "with")
        others, same_rows = do_run("TEST.TEMPERATURE", False)
        assert others["temperature"] is None and "emperature" not in log_of(tmp_path)
        for results in (results, others):
            del results["temperature"], results["cost"], results["provenance"]
        assert others == results and same_rows == rows

    def test_neither_files_nor_temperature_make_another_run(self, do_run, tmp_path, capsys):
        do_run()
        before = (tmp_path / "run/results.json").read_bytes()
        do_run("TEST.TEMPERATURE", False, "TEST.SAVE_PREDICTIONS", False, "TEST.SAVE_LOGITS", True)
        assert (tmp_path / "run/results.json").read_bytes() == before
        how = f"--eval-only --model-dir {tmp_path / 'run'} --load-epoch 1, into another --output-dir."
        assert f"It has no logits.npz, which a test writes. Test again with {how}\n" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("split", "why"),
        [("test", "tested on"), ("train", "trained on"), (None, "the data set has no selection items")],
    )
    def test_items_that_say_nothing_of_new_images(self, do_run, tmp_path, register, split, why):
        class Other(Folder):
            def choose(self, items, cfg):
                train, val, test, _ = super().choose(items, cfg)
                return train, val, test, {"test": val + test[:1], "train": val + train[:1], None: []}[split]

        register(DATASET_REGISTRY, Other, name="Folder")
        assert do_run()[0]["temperature"] is None
        assert "No temperature: " in log_of(tmp_path) and why in log_of(tmp_path)

    def test_a_test_of_the_methods_own_may_have_other_logits(self, do_run, tmp_path, register):
        class Sharper(CoOp):
            def test(self, split=None):
                self.results = evaluate(self.evaluator, ((9 * z, y) for z, y in self.predictions("test")))
                return self.results["accuracy"]

        register(TRAINER_REGISTRY, Sharper)
        results, rows = do_run("TRAINER.NAME", "Sharper", "OPTIM.LR", 0.002)
        assert results["temperature"] is None and len(rows) == 9
        assert "No temperature: Sharper has a test of its own" in log_of(tmp_path)

    def test_training_items_may_serve_where_nothing_was_trained(self, do_run, tmp_path, register):
        class Other(Folder):
            def choose(self, items, cfg):
                train, val, test, _ = super().choose(items, cfg)
                return train, val, test, train

        register(DATASET_REGISTRY, Other, name="Folder")
        do_run("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
        assert "none is better for the selection items" in log_of(tmp_path)  # they were looked at: this CLIP guesses

    @pytest.mark.parametrize("skips", [False, True])
    def test_an_image_that_cannot_be_read_costs_no_result(self, do_run, tmp_path, skips):
        data = write_images(tmp_path / "data")
        bad = data / "val/face/0.png"
        bad.write_bytes(b"no image")
        results, rows = do_run("INPUT.ON_BAD_IMAGE", "skip" if skips else "error", data=data)
        assert len(rows) == 9
        if skips:
            assert "fitted on 5 items" in log_of(tmp_path) or "No temperature: none is better" in log_of(tmp_path)
            assert results["skipped_images"]["val"]["paths"] == [str(bad)]
        else:
            message = f"No temperature is fitted: a selection image cannot be read. Image {bad} does not decode"
            assert results["temperature"] is None and own_warnings(results)[0].startswith(message)


class TestConfusion:
    counts = np.array([[5, 2, 0], [0, 3, 4], [1, 0, 0]])

    def test_counts_are_by_true_class_and_answer(self):
        labels, predictions = zip(*[(i, j) for i in range(3) for j in range(3) for _ in range(self.counts[i, j])])
        beyond = ([*labels, 1], [*predictions, 7])  # of a model with more outputs
        assert (confusion_counts(*beyond, 3) == self.counts).all()
        assert most_confused(self.counts) == [(1, 2), (0, 1), (2, 0)]

    def test_a_run_leaves_a_table_and_a_picture(self, do_run, tmp_path):
        _, rows = do_run("TEST.COMPUTE_CMAT", True)
        with (tmp_path / "run/cmat.csv").open(newline="") as stream:
            header, *table = csv.reader(stream)
        assert header == ["true", *CLASSES] and [row[0] for row in table] == list(CLASSES)
        for row in table:
            said = [answer["prediction"] for answer in rows if answer["true"] == row[0]]
            assert [int(n) for n in row[1:]] == [said.count(name) for name in CLASSES]
        with Image.open(tmp_path / "run/cmat.png") as picture:
            assert picture.format == "PNG" and min(picture.size) > 400

    @pytest.mark.parametrize("n", [1, 31, 121])  # with counts, with names, with dots
    def test_names_of_all_kinds_are_drawn(self, tmp_path, n):
        names = ["$x", "two\nlines", "\udce9", "a" * 99, *map(str, range(n))][:n]
        draw_confusion(tmp_path / "cmat.png", np.eye(n, dtype=np.int64) + np.eye(n, k=1, dtype=np.int64), names)
        write_table(tmp_path / "cmat.csv", np.eye(n, dtype=np.int64), names)
        assert (tmp_path / "cmat.png").stat().st_size > 5000


def test_a_dassl_style_subclass_that_counts_itself_leaves_no_answers():
    class Counts(Classification):
        def process(self, logits, labels):
            self._labels.extend(labels.tolist())
            self._predictions.extend(logits.argmax(dim=1).tolist())

    evaluator = Counts(get_cfg_default(), {0: "a", 1: "b"})
    evaluator.process(torch.eye(2), torch.tensor([0, 0]))
    assert evaluator.answers is None and evaluator.evaluate()["accuracy"] == 50.0
