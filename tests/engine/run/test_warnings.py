"""What makes a result doubtful, from the run to the report: chance, seeds far apart, a loss that is no number."""

import csv
import io
import json
import logging
import re

import numpy as np
import pytest
import torch

import report
import train
from datasets.folder import Folder
from engine import DatasetBase, save_checkpoint
from engine.config.defaults import get_cfg_default
from engine.evaluator import Classification
from engine.log import close_logging
from parse_test_res import main, parse_run, warnings_of
from reports.experiments import coop, linear_probe, zero_shot
from reports.figures.few_shot import find_curves
from reports.runs import Run
from reports.tables.catalogue import TABLES
from reports.tables.table import fill
from tests.support.made_up_results import write_results
from tests.support.tiny_run import tiny_cfg

CHANCE = re.compile(
    r"The accuracy on the classes of the training is ([\d.]+)% of ([\d,]+) images, not above ([\d.]+)%: chance "
    r"\(([\d.]+)%\) and 3 standard deviations\. See in the log whether the loss fell, and check OPTIM\.LR, the images "
    r"and the class names\."
)
COOP = coop("shapes", "tiny").folder
BEST = ("TEST.FINAL_MODEL", "best_val")


def warning(labels, predictions):
    """What the evaluator says of these answers."""
    labels, predictions = torch.as_tensor(labels), torch.as_tensor(predictions)
    n_classes = int(max(labels.max(), predictions.max())) + 1
    evaluator = Classification(get_cfg_default(), {label: f"class {label}" for label in range(n_classes)})
    evaluator.process(torch.nn.functional.one_hot(predictions, n_classes).float(), labels)
    return evaluator.chance_warning()


def answers(n_classes, n_images, n_correct):
    """Labels of classes of one size, and predictions as many of each class, of which so many of each are right."""
    labels = torch.arange(n_classes).repeat_interleave(n_images)
    wrong = (torch.arange(n_images) >= n_correct).repeat(n_classes)
    return labels, (labels + wrong) % n_classes


class TestChance:
    def test_by_hand(self):
        # chance 1/4, its standard deviation sqrt(1/4 * 3/4 / 100) = 4.330 points; 25 + 12.990 = 37.990
        assert CHANCE.fullmatch(warning(*answers(4, 25, 9))).groups() == ("36.00", "100", "37.99", "25.00")
        assert warning(*answers(4, 25, 10)) == ""  # 40 %

    def test_one_answer_for_every_image_is_chance_however_often_it_is_right(self):
        labels = [0] * 900 + [1] * 100  # 90 + 3 * 100 sqrt(0.9 * 0.1 / 1000) = 92.846
        assert CHANCE.fullmatch(warning(labels, [0] * 1000)).groups() == ("90.00", "1,000", "92.85", "90.00")

    def test_chance_is_what_answers_dealt_out_at_random_get(self):
        rng = np.random.default_rng(0)
        labels = rng.choice(5, 400, p=[0.5, 0.2, 0.1, 0.1, 0.1])
        predictions = rng.choice(5, 400, p=[0.3, 0.1, 0.1, 0.1, 0.4])
        accuracies = [100 * (rng.permutation(predictions) == labels).mean() for _ in range(2000)]
        _, _, limit, chance = map(float, CHANCE.fullmatch(warning(labels, predictions)).groups())
        assert chance == pytest.approx(np.mean(accuracies), abs=0.2)
        assert (limit - chance) / 3 == pytest.approx(np.std(accuracies), rel=0.2)  # the binomial is a bit wider

    @pytest.mark.parametrize(
        ("n_classes", "n_images", "n_correct"), [(100, 33, 3), (47, 36, 15), (96, 20, 9)], ids=["9%", "42%", "45%"]
    )
    def test_one_shot_is_far_above_chance(self, n_classes, n_images, n_correct):
        assert warning(*answers(n_classes, n_images, n_correct)) == ""

    def test_where_even_perfect_answers_would_not_stand_out_nothing_is_said(self):
        assert warning([0, 0, 1, 1], [0, 0, 1, 1]) == ""  # 50 + 3 * 25 points
        assert warning([0, 0, 1, 1], [1, 1, 0, 0]) == ""

    def test_of_one_class_every_answer_is_by_chance(self):
        assert warning([0] * 100, [0] * 100) == ""


class TestRuns:
    """Which runs say it: those tested on the classes that were trained on."""

    @pytest.fixture
    def run(self, tiny_files, tmp_path, monkeypatch):
        monkeypatch.setattr(Classification, "chance_warning", lambda self: "It guesses.")

        def call(name, *pairs):
            data, clips = tiny_files
            try:
                train.run(tiny_cfg(data, clips["vit"], tmp_path / name, "OPTIM.MAX_EPOCH", 1, *pairs))
            finally:
                close_logging()
            assert "Warning: It guesses.\n" in (tmp_path / name / "log.txt").read_text() or not said(name)
            return said(name)

        def said(name):
            return json.loads((tmp_path / name / "results.json").read_text())["warnings"]

        return call

    def test_training_and_a_test_on_the_same_classes(self, run, tmp_path):
        assert run("trained", "DATASET.SUBSAMPLE_CLASSES", "base") == ["It guesses."]
        test = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "trained"), "RUN.LOAD_EPOCH", 1)
        assert run("base", *test, "DATASET.SUBSAMPLE_CLASSES", "base") == ["It guesses."]
        assert run("new", *test, "DATASET.SUBSAMPLE_CLASSES", "new") == []

    def test_zero_shot_may_be_at_chance(self, run):
        assert run("zero", "TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True) == []

    def test_without_a_test_nothing_is_known(self, run):
        assert run("untested", "TEST.NO_TEST", True) == []


class TestChoiceOnTheTestImages:
    """Which results say that the epoch was chosen by images that are tested on."""

    SAID = (
        "TEST.FINAL_MODEL is best_val and {} of the {} images tested on are validation images: they "
        "chose the epoch, so on new images the accuracy may be lower. Say so beside the number, or train with "
        "TEST.FINAL_MODEL last_step."
    )

    @pytest.fixture
    def run(self, tiny_files, tmp_path, monkeypatch):
        """Trains or tests on a data set whose val items are its test items, as ImageNet's; returns its warnings."""
        monkeypatch.setattr(Classification, "chance_warning", lambda self: "")
        monkeypatch.setattr(Folder, "val_is_test", True)
        probe = ("TRAINER.LINEAR_PROBE.PREC", "fp32", "DATASET.NUM_SHOTS", 2)

        def call(name, *pairs):
            data, clips = tiny_files
            try:
                train.run(tiny_cfg(data, clips["vit"], tmp_path / name, "TRAIN.CHECKPOINT_FREQ", 1, *probe, *pairs))
            finally:
                close_logging()
            return json.loads((tmp_path / name / "results.json").read_text())["warnings"]

        return call

    def test_training_and_a_test_of_the_chosen_epoch(self, run, tmp_path):
        assert run("best", *BEST) == [self.SAID.format(9, 9)]
        test = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "best"))
        assert run("again", *test) == [self.SAID.format(9, 9)]
        assert run("last", *test, "RUN.LOAD_EPOCH", 2) == []
        assert run("new classes", *test, "DATASET.SUBSAMPLE_CLASSES", "new") == []

    def test_some_of_the_images(self, run, monkeypatch):
        load = DatasetBase.__init__

        def with_two_test_items(self, train_x, *, val, test, **others):
            load(self, train_x, val=[*train_x[:1], *test[4:6]], test=test, **others)

        monkeypatch.setattr(DatasetBase, "__init__", with_two_test_items)
        assert run("some", *BEST) == [self.SAID.format(2, 9)]

    def test_a_test_on_the_validation_items(self, run, monkeypatch):
        monkeypatch.setattr(Folder, "val_is_test", False)
        assert run("val", *BEST, "TEST.SPLIT", "val") == [self.SAID.format(6, 6)]
        assert run("test", *BEST) == []

    @pytest.mark.parametrize("pairs", [(), ("TEST.FINAL_MODEL", "best_val", "TRAINER.NAME", "LinearProbe")])
    def test_where_no_epoch_was_chosen(self, run, pairs):
        assert run("run", *pairs) == []

    def test_without_a_test(self, run):
        assert run("untested", *BEST, "TEST.NO_TEST", True) == []


class TestLossThatIsNoNumber:
    """The run ends with the reason, which stands in its log; whoever reads the runs reads the reason."""

    REASON = (
        "The run ended with an error: The loss is nan in epoch 1, batch 1, at learning rate 2.0000e-02. "
        "Lower OPTIM.LR, or use PREC fp32; what was saved before is as it was"
    )

    @pytest.fixture
    def failed(self, tiny_files, tmp_path, capsys):
        """Two finished runs of CoOp on shapes, a third that starts from what is no number; its exit code and error."""
        start = {"state_dict": {"ctx": torch.full((2, 64), torch.inf)}, "epoch": 1}  # a norm makes NaN of it
        pairs = ("MODEL.INIT_WEIGHTS", str(save_checkpoint(start, tmp_path / "start")))
        write_results(tmp_path, COOP, {1: 70.0, 2: 71.0})
        cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / COOP / "seed3", *pairs)
        (tmp_path / "run.yaml").write_text(cfg.dump())
        code = train.main([f"--config-file={tmp_path / 'run.yaml'}"])
        return code, capsys.readouterr().err

    def test_exit_code_log_and_report(self, failed, tmp_path, capsys):
        folder = tmp_path / COOP / "seed3"
        assert failed == (1, f"Error: {self.REASON.partition(': ')[2]}.\n")
        assert f"{self.REASON}.\n" in (folder / "log.txt").read_text()
        assert not (folder / "results.json").exists()
        assert parse_run(folder).problem == f"log.txt: {self.REASON}"
        assert main([str(folder.parent)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert f"Warning: left out {folder}: log.txt: {self.REASON}." in lines
        assert lines[-3:] == ["* accuracy: 70.50% +- 0.50%", "(over 2 of 3 runs)", "==="]
        assert report.main(["shapes_prompts", "--output-dir", str(tmp_path)]) == 0
        assert f"Not counted: {COOP}/seed3: log.txt: {self.REASON}." in capsys.readouterr().out

    def test_a_run_that_was_started_again_is_not_failed(self, tmp_path):
        log = f"epoch [1/2] batch\n{self.REASON}.\nTraceback\nLoading CLIP (backbone: RN50)\n"
        (tmp_path / "log.txt").write_text(log)
        assert parse_run(tmp_path).problem == 'log.txt: no line "Finish training", so the run is not finished'
        (tmp_path / "log.txt").write_text(log + "Finish training\n=> result\n* accuracy: 50.0%\n")
        assert parse_run(tmp_path).value == 50.0

    def test_a_result_counts_though_the_run_failed_after_it(self, tmp_path):
        (tmp_path / "log.txt").write_text(f"Finish training\n* accuracy: 50.0%\n{self.REASON}.\n")
        assert parse_run(tmp_path).value == 50.0


def runs(tmp_path, values, **more):
    return [Run(tmp_path / f"seed{i}", value=value, **more) for i, value in enumerate(values, start=1)]


WIDE = "The standard deviation over 3 seeds is 8.16 points, expected at most 5.00. Look into the log of the seed that "
WIDE += "stands apart, or run more seeds."


class TestSeeds:
    def test_seeds_far_apart(self, tmp_path):
        assert warnings_of(runs(tmp_path, [60.0, 70.0, 80.0])) == [WIDE]  # sqrt((100 + 0 + 100) / 3) = 8.165
        assert warnings_of(runs(tmp_path, [60.0, 70.0, 80.0], total=2465)) == [WIDE]

    @pytest.mark.parametrize(
        "values",
        [[91.81, 92.01, 92.17], [60.0, 62.43, 64.2], [45.2, 49.8, 54.5], [50.0], [50.0, 60.0]],
        ids=["the authors'", "one shot", "the widest on shapes", "one seed", "just not"],
    )
    def test_seeds_as_they_usually_are(self, tmp_path, values):
        assert warnings_of(runs(tmp_path, values)) == []

    def test_few_test_images_move_every_accuracy(self, tmp_path):
        # binomial: sqrt(0.7 * 0.3 / 25) = 9.17 points, three times that 27.5; of 700 images 1.73 and 5.20
        assert warnings_of(runs(tmp_path, [60.0, 70.0, 80.0], total=25)) == []
        [sentence] = warnings_of(runs(tmp_path, [60.0, 70.0, 80.0], total=700))
        assert "is 8.16 points, expected at most 5.20." in sentence

    def test_data_sets_side_by_side_are_no_seeds(self, tmp_path):
        assert warnings_of([Run(tmp_path / name, value=value) for name, value in (("dtd", 40.0), ("pets", 90.0))]) == []

    def test_a_seeds_own_warning_is_passed_on(self, tmp_path, capsys):
        write_results(tmp_path, "CoOp", {1: 70.0, 2: 71.0})
        write_results(tmp_path, "CoOp", {3: 1.0}, total=1920, warnings=["It guesses.", "Its\n* accuracy: 99%"])
        assert main([str(tmp_path / "CoOp")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[lines.index("* accuracy: 47.33% +- 32.77%") :] == [
            "* accuracy: 47.33% +- 32.77%",
            "Warning: seed3: It guesses.",
            r"Warning: seed3: 'Its\n* accuracy: 99%'",
            "Warning: The standard deviation over 3 seeds is 32.77 points, expected at most 5.00. Look into the log of "
            "the seed that stands apart, or run more seeds.",
            "===",
        ]

    @pytest.mark.parametrize("said", ["a word", 7, None, {"a": 1}])
    def test_warnings_that_are_no_list_are_none(self, tmp_path, said):
        write_results(tmp_path, "run", 70.0, warnings=said, total="many")
        run = parse_run(tmp_path / "run")
        assert (run.value, run.warnings, run.total) == (70.0, (), None)


class TestReport:
    @pytest.fixture
    def output(self, tmp_path):
        """CoOp's seeds lie far apart, one at chance; zero-shot CLIP is as it should be."""
        write_results(tmp_path, zero_shot("shapes", "tiny").folder, 57.0)
        write_results(tmp_path, COOP, {1: 60.0, 2: 70.0})
        write_results(tmp_path, COOP, {3: 80.0}, warnings=["It guesses."])
        return tmp_path

    def say(self, capsys, output, *args):
        assert report.main(["shapes_prompts", "--output-dir", str(output), *args]) == 0
        return capsys.readouterr().out

    def test_text(self, output, capsys):
        out = self.say(capsys, output)
        assert f"\nWarning: {COOP}: seed3: It guesses.\nWarning: {COOP}: {WIDE}\n" in out
        assert re.search(r"^CoOp, M=16 +70\.00 \+- 8\.16 \(warning\)$", out, re.MULTILINE)

    @pytest.mark.parametrize("kind", ["markdown", "latex"])
    def test_documents(self, output, capsys, kind):
        out = self.say(capsys, output, "--format", kind)
        start = {"markdown": "- ", "latex": "% "}[kind]
        assert f"\n{start}Warning: {COOP}: {WIDE}\n" in f"\n{out}" and "(warning)" in out

    def test_page(self, output, capsys):
        out = self.say(capsys, output, "--format", "html")
        assert "<details open><summary>1 of 3 values missing, 2 warnings</summary>" in out
        assert f"<li>Warning: {COOP}: {WIDE}</li>" in out and '<span class="mark">warning</span>' in out

    def test_csv(self, output, capsys):
        rows = list(csv.DictReader(io.StringIO(self.say(capsys, output, "--format", "csv"))))
        [row] = [row for row in rows if row["row"] == "CoOp, M=16"]
        assert row["problem"] == f"warning; {COOP}: seed3: It guesses.; {COOP}: {WIDE}"
        assert {row["problem"] for row in rows if row["row"] == "hand-made prompt"} == {""}

    def test_equally_many_other_seeds(self, tmp_path, capsys):
        folders = [linear_probe("shapes", "tiny", shots=shots).folder for shots in (1, 2, 16)]
        for folder, seeds in zip(folders, ((1, 2), (1, 2), (2, 3))):
            write_results(tmp_path, folder, dict.fromkeys(seeds, 60.0))
        assert fill(TABLES["shapes_few_shot"], tmp_path).other_seeds == (["seed1", "seed2"], ["seed2", "seed3"])
        report.main(["shapes_few_shot", "--output-dir", str(tmp_path)])
        said = "2 seeds. Not the same seeds everywhere: seed1 seed2 in some cells, seed2 seed3 in others."
        assert said in capsys.readouterr().out

    def test_unequally_many_seeds_are_not_called_others(self, tmp_path):
        for shots, seeds in ((1, (1, 2)), (2, (1, 2, 3))):
            folder = linear_probe("shapes", "tiny", shots=shots).folder
            write_results(tmp_path, folder, dict.fromkeys(seeds, 60.0))
        assert fill(TABLES["shapes_few_shot"], tmp_path).other_seeds is None

    def test_curves(self, output):
        assert find_curves(output).notes == [f"{output / COOP}: seed3: It guesses", f"{output / COOP}: {WIDE[:-1]}"]


def test_warnings_do_not_disturb_who_reads_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    log = "Finish training\n=> result\n* accuracy: 1.04%\nWarning: " + warning(*answers(4, 25, 9)) + "\n"
    (tmp_path / "log.txt").write_text(log)
    assert parse_run(tmp_path).value == 1.04
