"""What makes a result doubtful, from the run to the report: chance, seeds far apart, a loss that is no number."""

import csv
import io
import re

import numpy as np
import pytest
import torch

import report
import train
from engine import save_checkpoint
from engine.config.defaults import get_cfg_default
from engine.evaluation.evaluator import Classification
from parse_test_res import main, parse_run, warnings_of
from reports.experiments import coop, linear_probe, zero_shot
from reports.figures.few_shot import find_curves
from reports.runs import Run
from reports.tables.catalogue import TABLES
from reports.tables.table import fill
from tests.support.made_up_results import write_results
from tests.support.tiny_run import own_warnings, run_train, tiny_cfg

CHANCE = re.compile(
    r"The accuracy is ([\d.]+)% of ([\d,]+) images, not above ([\d.]+)%: chance \(([\d.]+)%\) and 3 standard "
    r"deviations\. Check the images, the class names and whether the backbone knows them; after a training also "
    r"OPTIM\.LR, and in the log whether the loss fell\."
)
ONE_CLASS = (
    "There is a single class, 'wine_bottle': every answer is right, whatever is learned. Add another class, or leave "
    "DATASET.SUBSAMPLE_CLASSES at all."
)
COOP = coop("shapes", "tiny").folder


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

    def test_answers_that_no_image_has_for_a_label(self):
        said = "None of the 100 images is classified rightly: no answer is a class that they have. Check the images, "
        assert warning([0, 1] * 50, [2] * 100).startswith(said)

    @pytest.mark.parametrize(
        ("n_classes", "n_images", "n_correct"), [(100, 33, 3), (47, 36, 15), (96, 20, 9)], ids=["9%", "42%", "45%"]
    )
    def test_one_shot_is_far_above_chance(self, n_classes, n_images, n_correct):
        assert warning(*answers(n_classes, n_images, n_correct)) == ""

    def test_where_even_perfect_answers_would_not_stand_out_nothing_is_said(self):
        assert warning([0, 0, 1, 1], [0, 0, 1, 1]) == ""  # 50 + 3 * 25 points
        assert warning([0, 0, 1, 1], [1, 1, 0, 0]) == ""
        assert warning([0] * 100, [0] * 100) == ""  # of one class


@pytest.fixture
def run(tiny_files, tmp_path):
    """Trains or tests in a folder; returns the warnings of its results, which its log has too."""

    def call(name, *pairs):
        data, clips = tiny_files
        cfg = tiny_cfg(data, clips["vit"], tmp_path / name, "DATASET.NUM_SHOTS", 2, *pairs)
        said = run_train(cfg)
        log = (tmp_path / name / "log.txt").read_text()
        assert all(f"Warning: {text}\n" in log for text in said["warnings"])
        assert "The weights vit.pt are not OpenAI's: QuickGELU and heads of 64 are assumed." in log
        return own_warnings(said)

    return call


def test_the_embedded_weights_need_no_warning(tiny_files, tmp_path):
    pairs = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True, "INPUT.SIZE", (48, 48))
    cfg = tiny_cfg(tiny_files[0], "ViT-T/8-shapes", tmp_path / "run", *pairs)
    assert not [text for text in run_train(cfg)["warnings"] if "weights" in text]


def test_runs_say_that_they_guess_but_on_classes_that_they_were_not_trained_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "chance_warning", lambda self: "It guesses.")
    assert run("trained", "DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.MAX_EPOCH", 1) == ["It guesses."]
    test = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "trained"), "RUN.LOAD_EPOCH", 1)
    assert run("base", *test, "DATASET.SUBSAMPLE_CLASSES", "base") == ["It guesses."]
    assert run("new", *test, "DATASET.SUBSAMPLE_CLASSES", "new") == [ONE_CLASS]
    assert run("zero", "TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True) == ["It guesses."]
    assert run("untested", "TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 1) == []


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

    def test_a_run_that_was_started_again_or_failed_after_its_result_is_not_failed(self, tmp_path):
        log = f"epoch [1/2] batch\n{self.REASON}.\nTraceback\nLoading CLIP (backbone: RN50)\n"
        (tmp_path / "log.txt").write_text(log)
        assert parse_run(tmp_path).problem == 'log.txt: no line "Finish training", so the run is not finished'
        (tmp_path / "log.txt").write_text(log + "Finish training\n=> result\n* accuracy: 50.0%\n")
        assert parse_run(tmp_path).value == 50.0
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
        values = {"dtd": 40.0, "pets": 90.0}
        apart = [Run(tmp_path / name, value=value, identity={"dataset": name}) for name, value in values.items()]
        assert warnings_of(apart) == []

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

    def test_every_format(self, output, capsys):
        out = self.say(capsys, output)
        assert f"\nWarning: {COOP}: seed3: It guesses.\nWarning: {COOP}: {WIDE}\n" in out
        assert re.search(r"^CoOp, M=16 +70\.00 \+- 8\.16 \(warning\)$", out, re.MULTILINE)
        for kind, start in (("markdown", "- "), ("latex", "% ")):
            out = self.say(capsys, output, "--format", kind)
            assert f"\n{start}Warning: {COOP}: {WIDE}\n" in f"\n{out}" and "(warning)" in out
        out = self.say(capsys, output, "--format", "html")
        assert "<details open><summary>1 of 3 values missing, 2 warnings</summary>" in out
        assert f"<li>Warning: {COOP}: {WIDE}</li>" in out and '<span class="mark">warning</span>' in out
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
        write_results(tmp_path, folders[2], {1: 60.0})  # unequally many are not called others
        assert fill(TABLES["shapes_few_shot"], tmp_path).other_seeds is None

    def test_curves(self, output):
        assert find_curves(output).notes == [f"{output / COOP}: seed3: It guesses", f"{output / COOP}: {WIDE[:-1]}"]
