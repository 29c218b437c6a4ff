"""What runs say they are: against what belongs into their folder, and against the runs of the same average."""

import csv
import io
import shutil
from pathlib import Path

import pytest

import parse_test_res
import report
from parse_test_res import warnings_of
from reports.experiments import coop, nearest_words, transfer, zero_shot
from reports.figures.few_shot import find_curves
from reports.identity import differences, mismatch
from reports.runs import IDENTITY, Run, parse_run
from reports.tables.catalogue import TABLES
from reports.tables.table import fill
from tests.support.made_up_results import write_logs, write_results, write_words
from tests.support.tiny_run import run_train, tiny_cfg

COCOOP = "vit_b16_c4_ep10_batch1_ctxv1"
DTD = transfer("dtd", "CoCoOp", COCOOP, source="imagenet").folder
RIGHT = {
    "trainer": "CoCoOp",
    "cfg": COCOOP,
    "dataset": "DescribableTextures",
    "source": "ImageNet",
    "shots": 16,
    "subsample": "all",
    "split": "test",
    "seed": 1,
}
WRONG = {
    "trainer": "CoOp",
    "cfg": "vit_b16_c4_ep10_batch1",
    "dataset": "OxfordFlowers",
    "source": "Caltech101",
    "shots": 4,
    "subsample": "new",
    "split": "val",
    "seed": 7,
}
COOP = coop("shapes", "tiny").folder
ONE_EPOCH = ("OPTIM.MAX_EPOCH", 1)
OTHER_ITEMS = "The runs of this average were tested on other items: "
REMEDY = ". Run them again with one configuration, or average those of each configuration."


def differ(settings):
    return f"The runs of this average differ: {settings}{REMEDY}"


def cell(output, table="cross_dataset", row="DTD", column="CoCoOp"):
    return next(c.value for c in fill(TABLES[table], output).cells() if (c.row.name, c.column) == (row, column))


def run(name, identity=None, **settings):
    return Run(Path(name), Path(name, "results.json"), 60.0, identity=identity or {"seed": 1}, settings=settings)


class TestFolder:
    @pytest.mark.parametrize("key", WRONG)
    def test_another_run_is_named_and_not_counted(self, tmp_path, key):
        write_results(tmp_path, DTD, {1: 99.5}, **{**RIGHT, key: WRONG[key]})
        write_results(tmp_path, DTD, {2: 55.5}, **{**RIGHT, "seed": 2})
        found = cell(tmp_path)
        assert (found.value, found.n_seeds) == (55.5, (1, 1))
        said = f"results.json is of another run: {key} is {WRONG[key]!r}, not {RIGHT[key]!r}"
        assert found.problems == (f"{DTD}/seed1: {said}",)

    @pytest.mark.parametrize(
        ("key", "said", "expected"),
        [("n_ctx", 4, 16), ("csc", True, False), ("class_token_position", "front", "end")],
    )
    def test_another_kind_of_context(self, tmp_path, key, said, expected):
        write_results(tmp_path, COOP, {1: 70.0}, settings={"SEED": 1}, **{key: said})
        found = cell(tmp_path, "shapes_prompts", "CoOp, M=16", "Shapes")
        assert found.value is None and found.problems[0].endswith(f": {key} is {said!r}, not {expected!r}")

    def test_the_only_run_of_an_experiment(self, tmp_path):
        write_results(tmp_path, zero_shot("shapes", "tiny").folder, 57.0, dataset="ShapesV2", source=None, seed=9)
        problem = "results.json is of another run: dataset is 'ShapesV2', not 'Shapes'"
        found = cell(tmp_path, "shapes_prompts", "hand-made prompt", "Shapes")
        assert (found.value, found.problems) == (None, (f"{zero_shot('shapes', 'tiny').folder}: {problem}",))

    def test_what_results_do_not_say_is_not_held_against_them(self, tmp_path):
        """Older ones lack entries, a log has none, and a test of the original's model knows nothing of its training."""
        write_results(tmp_path, DTD, {1: 50.0}, **RIGHT)
        write_results(tmp_path, DTD, {2: 52.0}, split="test")
        write_results(tmp_path, DTD, {3: 54.0}, **{**RIGHT, "source": None, "shots": -1, "seed": 3})
        write_logs(tmp_path, DTD, {4: "56.0"}, "=> result\n* accuracy: {accuracy}%\n")
        assert (cell(tmp_path).value, cell(tmp_path).problems) == (53.0, ())

    @pytest.mark.parametrize("kind", report.FORMATS)
    def test_every_report_names_it(self, tmp_path, capsys, kind):
        write_results(tmp_path, DTD, {1: 99.5}, **{**RIGHT, "shots": 4})
        said = f"{DTD}/seed1: results.json is of another run: shots is 4, not 16"
        assert report.main(["cross_dataset", "--output-dir", str(tmp_path), "--format", kind]) == 1
        assert said in capsys.readouterr().err  # there is no other
        write_results(tmp_path, DTD, {2: 55.5})
        assert report.main(["cross_dataset", "--output-dir", str(tmp_path), "--format", kind]) == 0
        out = capsys.readouterr().out
        assert said in out and "99.5" not in out

    def test_the_words_nearest_to_another_runs_context(self, tmp_path):
        folder = nearest_words("shapes", "tiny").folder
        for seed, word in ((1, "others"), (2, "own")):
            write_results(tmp_path, folder, {seed: 60.0}, seed=2)
            write_words(tmp_path, folder, word, seed)
        found = cell(tmp_path, "shapes_nearest_words", "vector 1", "Shapes")
        assert found.value == "own (1.0000)"
        assert found.problems == (f"{folder}/seed1: results.json is of another run: seed is 2, not 1",)

    @pytest.mark.parametrize("settings", [{"TRAINER.COOP.CTX_INIT": "a photo of a"}, None], ids=["words", "older"])
    def test_words_to_start_from_decide_the_number_of_vectors(self, tmp_path, settings):
        """The folder's name says what was asked for."""
        write_results(tmp_path, COOP, {1: 70.0}, n_ctx=4, settings=settings)
        assert cell(tmp_path, "shapes_prompts", "CoOp, M=16", "Shapes").value == 70.0

    def test_curves(self, tmp_path):
        write_results(tmp_path, COOP, {1: 60.0}, seed=1, shots=16, n_ctx=16, csc=False, dataset="Shapes")
        write_results(tmp_path, COOP, {2: 90.0}, seed=2, shots=1, n_ctx=4, csc=True, split="val", settings={"SEED": 2})
        star = tmp_path / zero_shot("shapes", "tiny").folder
        write_results(tmp_path, star, 99.0, subsample="new")
        curves = find_curves(tmp_path)
        [seeds] = curves.points["shapes"].values()
        assert (seeds, curves.zero_shot) == ({16: {"seed1": 60.0}}, {})
        differ = "split is 'val', not 'test'; shots is 1, not 16; n_ctx is 4, not 16; csc is True, not False"
        other = "results.json is of another run"
        assert curves.notes == [
            f"{tmp_path / COOP}/seed2 is left out: {other}: {differ}",
            f"{star} is missing in the curves: {other}: subsample is 'new', not 'all'",
        ]

    def test_curves_of_a_data_set_and_a_method_of_ones_own(self, tmp_path):
        says = {"trainer": "Mine", "dataset": "MyBirds", "source": "MyBirds", "shots": 1, "seed": 1, "n_ctx": 9}
        write_results(tmp_path, "birds/Mine/rn50_1shots/alpha0.5", {1: 60.0}, **says)
        curves = find_curves(tmp_path)
        assert curves.datasets == ["birds"] and "left out" not in "".join(curves.notes)

    def test_a_folder_of_any_name_holds_any_seed(self):
        assert mismatch(run("my_run", {"seed": 7}), {"trainer": None}) == ""


class TestSeeds:
    def test_settings_that_differ_are_named_with_their_seeds(self):
        runs = [run("seed1", LR="0.002"), run("seed2", LR="0.1", CSC="true"), run("seed3", LR="0.1", CSC="true")]
        assert warnings_of(runs) == [
            differ("LR is 0.002 in seed1, 0.1 in seed2, seed3; CSC is its default in seed1, true in seed2, seed3")
        ]

    def test_older_runs_are_compared_by_what_they_say(self):
        """An entry that one does not have is not compared, neither are settings that not all have."""
        runs = [run("seed1", {"shots": 1, "split": "test"}, LR="0.1"), run("seed2", {"shots": 4, "csc": False})]
        assert differences(runs) == differ("shots is 1 in seed1, 4 in seed2")
        log = Run(Path("seed2"), Path("seed2/log.txt"), 60.0)
        assert differences([run("seed1", LR="0.1"), log]) == differences([log, log]) == ""

    def test_no_more_than_five_are_named(self):
        one, other = ({f"K{i}": str(value) for i in range(8)} for value in (1, 2))
        sentence = differences([run("seed1", **one), run("seed2", **other)])
        assert sentence.count(" in seed1") == 5 and "K4 is 1 in seed1, 2 in seed2; and 3 more. Run" in sentence

    def test_reports_warn(self, tmp_path, capsys):
        write_results(tmp_path, COOP, {1: 60.0}, settings={"OPTIM.LR": 0.002})
        write_results(tmp_path, COOP, {2: 61.0}, settings={"OPTIM.LR": 0.1})
        sentence = differ("OPTIM.LR is 0.002 in seed1, 0.1 in seed2")
        assert parse_test_res.main([str(tmp_path / COOP)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-3:] == ["* accuracy: 60.50% +- 0.50%", f"Warning: {sentence}", "==="]
        assert report.main(["shapes_prompts", "--output-dir", str(tmp_path), "--format", "csv"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["problem"] for row in rows if row["measured"]] == [f"warning; {COOP}: {sentence}"]
        assert find_curves(tmp_path).notes[0] == f"{tmp_path / COOP}: {sentence[:-1]}"


class TestItems:
    """What was tested on: provenance.data_sha256 and total."""

    def write(self, output, seed, digest, total, split="test"):
        tested = {"total": total, "split": split, "provenance": {"data_sha256": {split: digest, "train": str(seed)}}}
        write_results(output, COOP, {seed: 60.0 + seed}, **tested)

    def test_equally_many_others(self, tmp_path):
        for seed, digest in ((1, "a"), (2, "b"), (3, "b")):
            self.write(tmp_path, seed, digest, 9)
        sentence = f"{OTHER_ITEMS}equally many, but not the same in seed1 as in seed2, seed3. Test them again"
        assert sentence in cell(tmp_path, "shapes_prompts", "CoOp, M=16", "Shapes").warnings[0]
        assert sentence in find_curves(tmp_path).notes[0]

    def test_the_same(self, tmp_path):
        for seed in (1, 2):
            self.write(tmp_path, seed, "a", 9)
        write_results(tmp_path, COOP, {3: 60.0})  # an older one says nothing
        assert cell(tmp_path, "shapes_prompts", "CoOp, M=16", "Shapes").warnings == ()

    def test_logs_say_how_many(self, tmp_path):
        for seed, total in ((1, "1,000"), (2, "1,001")):
            write_logs(
                tmp_path, COOP, {seed: "60.0"}, f"Finish training\n* total: {total}\n* accuracy: {{accuracy}}%\n"
            )
        assert f"{OTHER_ITEMS}1,000 in seed1, 1,001 in seed2." in find_curves(tmp_path).notes[0] + "."


class TestRuns:
    """What train.py writes is what is read."""

    @pytest.fixture
    def run(self, tiny_files, tmp_path):
        def call(name, seed, *pairs):
            data, clips = tiny_files
            folder = tmp_path / name / f"seed{seed}"
            run_train(tiny_cfg(data, clips["vit"], folder, "SEED", seed, "OPTIM.MAX_EPOCH", 1, *pairs))
            return parse_run(folder)

        return call

    def test_a_learning_rate_of_its_own_and_the_tests_of_both_models(self, run, tmp_path):
        trained = [run("trained", 1), run("trained", 2), run("trained", 3, "OPTIM.LR", 0.5)]
        assert set(IDENTITY) == trained[0].identity.keys()
        assert differences(trained[:2]) == ""
        assert differences(trained) == differ("OPTIM.LR is 0.02 in seed1, seed2, 0.5 in seed3")
        test = ("RUN.EVAL_ONLY", True, "RUN.LOAD_EPOCH", 1, "RUN.MODEL_DIR")
        tested = [run("tested", seed, *test, str(tmp_path / f"trained/seed{seed}")) for seed in (1, 2, 3)]
        assert differences(tested[:2]) == ""
        assert differences(tested) == differ("the model's OPTIM.LR is 0.02 in seed1, seed2, 0.5 in seed3")

    def test_seeds_that_were_tested_on_other_items(self, tiny_files, tmp_path, capsys):
        data = tmp_path / "data"
        shutil.copytree(tiny_files[0], data)
        image = next(data.glob("test/*/0.png"))
        for seed in (1, 2):
            run_train(tiny_cfg(data, tiny_files[1]["vit"], tmp_path / f"runs/seed{seed}", "SEED", seed, *ONE_EPOCH))
            image.with_name("more.png").write_bytes(image.read_bytes())
        assert parse_test_res.main([str(tmp_path / "runs")]) == 0
        assert f"Warning: {OTHER_ITEMS}9 in seed1, 10 in seed2. Test them again" in capsys.readouterr().out
