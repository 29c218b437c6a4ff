"""How a run's epoch and hyper-parameters were chosen: what is refused, and what results.json says."""

import hashlib
import json
import re

import pytest

from datasets.folder import Folder
from engine import DATASET_REGISTRY, TRAINER_REGISTRY, DatasetBase
from engine.config.load import ConfigError
from engine.evaluation.evaluator import Classification
from tests.support.tiny_run import CLASSES, own_warnings, run_train, tiny_cfg, write_images
from trainers.coop import CoOp

BEST_VAL, BEST_TEST = (("TEST.FINAL_MODEL", value) for value in ("best_val", "best_test"))
GDA = ("TRAINER.NAME", "GDA", "TRAINER.GDA.PREC", "fp32")
PROBE = ("TRAINER.NAME", "LinearProbe", "TRAINER.LINEAR_PROBE.PREC", "fp32")
ONE_SHOT, ALL = ("DATASET.NUM_SHOTS", 1), ("DATASET.NUM_SHOTS", -1)
FULL_VAL, TEST = (("DATASET.SELECTION", value) for value in ("full_val", "test"))
ALLOWED = ("TEST.ALLOW_ORACLE", True)
WAVERING = ("OPTIM.MAX_EPOCH", 6, "OPTIM.LR", 3.0, "SEED", 3)  # the best of these epochs is neither first nor last
NONE, FEW_SHOT, FULL, ORACLE = "none", "few-shot validation", "full validation", "test (oracle)"
OR_ALLOW = ", or set TEST.ALLOW_ORACLE to True: then the results and every table say so."
ON_TESTED = (
    "{} of the {} images tested on have chosen {}, so on new images the accuracy may be lower. Say so beside the "
    "number, or train with {}."
)
LAST_STEP, FEW_SHOT_VAL = "TEST.FINAL_MODEL last_step", "DATASET.SELECTION few_shot_val"


@pytest.fixture
def run(tiny_files, tmp_path, monkeypatch):
    """Trains or tests in a folder, with two shots; returns results.json. Of each class 4 images are to train, 2 val."""
    monkeypatch.setattr(Classification, "chance_warning", lambda self: "")

    def call(name, *pairs, data=tiny_files[0]):
        return run_train(tiny_cfg(data, tiny_files[1]["vit"], tmp_path / name, "DATASET.NUM_SHOTS", 2, *pairs))

    return call


@pytest.fixture
def rules(run):
    """The rules of a run's epoch and hyper-parameters."""
    return lambda *args, **more: tuple(run(*args, **more)["selection"].values())


def loading(folder, *pairs):
    return ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(folder), *pairs)


class TestRules:
    @pytest.mark.parametrize(
        ("pairs", "epoch", "hyperparameters"),
        [
            ((), NONE, NONE),
            (BEST_VAL, FEW_SHOT, NONE),
            ((*BEST_VAL, *ALL), FULL, NONE),
            ((*BEST_TEST, *ALLOWED), ORACLE, NONE),
            (PROBE, NONE, FEW_SHOT),
            ((*PROBE, *BEST_VAL), NONE, FEW_SHOT),
            ((*PROBE, *FULL_VAL), NONE, FEW_SHOT),
            ((*PROBE, *FULL_VAL, *ONE_SHOT, *ALLOWED), NONE, FULL),
            ((*PROBE, *FULL_VAL, *ALL), NONE, FULL),
            ((*PROBE, *TEST, *ALLOWED), NONE, ORACLE),
        ],
        ids=[
            *("nothing", "best of few", "best of all, of all shots", "best test epoch", "few", "a fit has no epochs"),
            *("all are few", "all of one shot", "all of all shots", "test images"),
        ],
    )
    def test_each(self, run, tmp_path, pairs, epoch, hyperparameters):
        results = run("run", *pairs)
        assert results["selection"] == {"epoch": epoch, "hyperparameters": hyperparameters}
        said = f"Chosen by: {epoch} (epoch), {hyperparameters} (hyper-parameters)\n"
        assert (said in log(tmp_path / "run")) == (pairs != ())
        assert (own_warnings(results) != []) == ("TEST.ALLOW_ORACLE" in pairs)

    def test_the_validation_items_of_a_list_of_few_shots_are_few_shots(self, rules, tmp_path):
        """Two of each class, where one would be drawn."""
        listed = [(split, c, i) for split, n in (("train", 1), ("val", 2)) for c in range(3) for i in range(n)]
        names = ("split", "impath", "label", "classname")
        lines = [dict(zip(names, (split, f"{split}/{CLASSES[c]}/{i}.png", c, CLASSES[c]))) for split, c, i in listed]
        (tmp_path / "few.jsonl").write_text("\n".join(map(json.dumps, lines)))
        few = (*ONE_SHOT, "DATASET.FEWSHOT_FILE", str(tmp_path / "few.jsonl"))
        assert rules("epoch", *few, *BEST_VAL) == (FEW_SHOT, NONE)
        assert rules("probe", *few, *PROBE) == (NONE, FEW_SHOT)

    def test_what_is_trained_on_chooses_nothing_of_a_method_on_features(self, rules, tmp_path):
        """It warns that its values stay as they are. LinearProbe fits on the others while it chooses."""
        more = {"data": write_images(tmp_path / "data", splits=("train", "test"))}
        assert rules("two shots", *GDA, **more) == (NONE, FEW_SHOT)  # by two that were not drawn
        assert rules("all shots", *GDA, *ALL, **more) == (NONE, NONE)
        assert rules("probe", *PROBE, *ALL, **more) == (NONE, FULL)

    def test_without_items_to_choose_by_nothing_is_chosen(self, run, tmp_path, register):
        class Searches(CoOp):
            @classmethod
            def searched(cls, cfg):
                return ("alpha",)

        class Unselected(Folder):
            def choose(self, items, cfg):
                return (*super().choose(items, cfg)[:3], [])

        register(TRAINER_REGISTRY, Searches, "CoOp")
        assert run("run")["selection"]["hyperparameters"] == FEW_SHOT
        register(DATASET_REGISTRY, Unselected, "Folder")
        assert run("none")["selection"]["hyperparameters"] == NONE


class TestTemperature:
    """That of a test alone; in a training, what fits it chooses the hyper-parameters, too."""

    WARNING = (
        "More validation images than few shots have chosen the temperature. Say so beside the number, or test with "
        "DATASET.SELECTION few_shot_val."
    )

    @pytest.mark.parametrize("of", ["CoOp", "nothing"])
    def test_full_validation_is_said_and_warned_of(self, run, tmp_path, of):
        if of == "CoOp":
            run("train", *ONE_SHOT)
        folder = tmp_path / "train" if of == "CoOp" else ""
        results = run("test", *loading(folder, "RUN.LOAD_EPOCH", 2 if folder else -1), *ONE_SHOT, *FULL_VAL)
        assert results["selection"]["hyperparameters"] == FULL and results["temperature"]
        assert own_warnings(results) == [self.WARNING]
        plain = run("plain", *loading(folder, "RUN.LOAD_EPOCH", 2 if folder else -1), *ONE_SHOT)
        assert plain["selection"]["hyperparameters"] == NONE and own_warnings(plain) == []

    @pytest.mark.parametrize(
        "pairs",
        [("TEST.TEMPERATURE", False), ("TEST.SPLIT", "val"), ("DATASET.NUM_SHOTS", 2)],
        ids=["none is fitted", "its items are tested on", "all are few"],
    )
    def test_what_fits_none_or_few_is_not(self, run, pairs):
        results = run("test", *loading(""), *ONE_SHOT, *FULL_VAL, *pairs)
        assert results["selection"]["hyperparameters"] in (NONE, FEW_SHOT) and own_warnings(results) == []

    def test_a_stricter_rule_of_the_training_stays(self, run, tmp_path):
        run("train", *GDA, *TEST, *ALLOWED)
        results = run("test", *loading(tmp_path / "train"), *GDA, *ONE_SHOT, *FULL_VAL)
        assert results["selection"]["hyperparameters"] == ORACLE and self.WARNING in results["warnings"]


@pytest.mark.parametrize("pairs", [GDA, PROBE], ids=["GDA", "LinearProbe"])
def test_a_method_without_epochs_deploys_no_best_one(run, tmp_path, pairs):
    run("run", *pairs, *BEST_VAL)
    assert re.findall("Deploy the (.*)", (tmp_path / "run" / "log.txt").read_text()) == ["model as it was fitted"]


class TestRefused:
    """Before training, unless TEST.ALLOW_ORACLE is True."""

    @pytest.fixture
    def refused(self, run, tmp_path):
        def call(*pairs, **more):
            with pytest.raises(ConfigError) as error:
                run("refused", *pairs, **more)
            assert not list((tmp_path / "refused").glob("*/*.pth.tar*")) and "epoch [" not in log(tmp_path / "refused")
            return str(error.value)

        return call

    def test_test_images(self, refused, monkeypatch):
        epoch = (
            "9 of the 9 images to choose the epoch by are test images; none may be. Set TEST.FINAL_MODEL to last_step"
            f"{OR_ALLOW}"
        )
        assert refused(*BEST_TEST) == f"TEST.FINAL_MODEL is best_test, but {epoch}"
        assert refused(*PROBE, *TEST) == (
            "DATASET.SELECTION is test, but 9 of the 9 images to choose C of LinearProbe by are test images; none may "
            f"be. Set DATASET.SELECTION to few_shot_val{OR_ALLOW}"
        )
        monkeypatch.setattr(Folder, "val_is_test", True)  # as of ImageNet
        assert refused(*BEST_VAL) == f"TEST.FINAL_MODEL is best_val, but {epoch}"
        both = refused(*PROBE, *FULL_VAL, "TEST.FINAL_MODEL", "best_val")  # whose epochs are none
        assert both.startswith("DATASET.SELECTION is full_val, but 9 of the 9 images to choose C of LinearProbe by are")

    def test_some_test_images_are_counted(self, refused, run, register):
        class Leaky(Folder):
            def choose(self, items, cfg):
                train, val, test, selection = super().choose(items, cfg)
                return train, val, test, selection + test[4:6]

        register(DATASET_REGISTRY, Leaky, "Folder")
        assert refused(*PROBE) == (
            "DATASET.SELECTION is few_shot_val, but 2 of the 8 images to choose C of LinearProbe by are test images; "
            f"none may be. Correct the selection items of the data set Folder{OR_ALLOW}"
        )
        assert own_warnings(run("allowed", *PROBE, *ALLOWED)) == [
            ON_TESTED.format(2, 9, "C of LinearProbe", FEW_SHOT_VAL)
        ]

    def test_full_validation_in_a_few_shot_run(self, refused):
        assert refused(*PROBE, *FULL_VAL, *ONE_SHOT) == (
            "DATASET.SELECTION is full_val, but there are 2 images of a class to choose C of LinearProbe by; in a "
            f"few-shot run at most 1 may be. Set DATASET.SELECTION to few_shot_val{OR_ALLOW}"
        )

    def test_a_choice_that_the_method_does_not_make(self, refused):
        said = "DATASET.SELECTION is {}, but {} chooses no hyper-parameters. Leave it at few_shot_val."
        assert refused(*FULL_VAL, *ALLOWED) == said.format("full_val", "CoOp")
        tip = ("TRAINER.NAME", "TipAdapter", "TRAINER.TIP_ADAPTER.PREC", "fp32", "TRAINER.TIP_ADAPTER.SEARCH_STEP", ())
        assert refused(*tip, *TEST) == said.format("test", "TipAdapter")

    def test_items_that_the_data_set_does_not_have(self, refused, tmp_path, register):
        data = write_images(tmp_path / "data", splits=("train", "test"))
        said = "DATASET.SELECTION is full_val, but the data set Folder {}. Leave it at few_shot_val."
        assert refused(*GDA, *FULL_VAL, data=data) == said.format("has no validation images")

        class Own(DatasetBase):
            def __init__(self, cfg):
                whole = Folder(cfg)
                super().__init__(whole.train_x, val=whole.val, test=whole.test)

        register(DATASET_REGISTRY, Own, "Folder")
        assert refused(*GDA, *FULL_VAL) == said.format("says itself by which items to choose")


class TestAllowed:
    """What a choice by test images, or by full validation, says beside the number."""

    def test_the_warnings(self, run):
        assert own_warnings(run("epoch", *BEST_TEST, *ALLOWED)) == [ON_TESTED.format(9, 9, "the epoch", LAST_STEP)]
        assert own_warnings(run("probe", *PROBE, *TEST, *ALLOWED)) == [
            ON_TESTED.format(9, 9, "C of LinearProbe", FEW_SHOT_VAL)
        ]
        assert own_warnings(run("full", *PROBE, *FULL_VAL, *ONE_SHOT, *ALLOWED)) == [
            "More validation images than few shots have chosen C of LinearProbe. Say so beside the number, or train "
            f"with {FEW_SHOT_VAL}."
        ]

    def test_a_measure_on_the_validation_images_that_have_chosen(self, run):
        """No test image has: it is allowed, and warned of."""
        for name, pairs, what, other in (
            ("epoch", BEST_VAL, "the epoch", LAST_STEP),
            ("probe", PROBE, "C of LinearProbe", FEW_SHOT_VAL),
        ):
            results = run(name, *pairs, "TEST.SPLIT", "val")
            assert own_warnings(results) == [ON_TESTED.format(6, 6, what, other)]
            assert FEW_SHOT in results["selection"].values()

    def test_the_flag_makes_no_other_run(self, run, tmp_path):
        run("run", *ALLOWED)
        before = (tmp_path / "run/results.json").stat().st_mtime_ns
        run("run")
        assert (tmp_path / "run/results.json").stat().st_mtime_ns == before


class TestTestAlone:
    """--eval-only takes over what the training says."""

    def test_of_the_chosen_epoch_of_the_last_and_of_another(self, run, rules, tmp_path):
        best = run("best", *WAVERING, *BEST_TEST, *ALLOWED, "TRAIN.CHECKPOINT_FREQ", 1)
        test = loading(tmp_path / "best")
        again = run("again", *test)
        assert again["selection"] == best["selection"] == {"epoch": ORACLE, "hyperparameters": NONE}
        assert own_warnings(again) == [ON_TESTED.format(9, 9, "the epoch", LAST_STEP)]
        assert 1 < best["epoch"] < 6
        for epoch, rule in ((6, NONE), (best["epoch"], ORACLE), (1, None)):
            assert rules(f"epoch {epoch}", *test, "RUN.LOAD_EPOCH", epoch) == (rule, NONE)

    def test_on_other_classes(self, run, tmp_path):
        run("base", *BEST_TEST, *ALLOWED, "DATASET.SUBSAMPLE_CLASSES", "base")
        new = run("new", *loading(tmp_path / "base"), "DATASET.SUBSAMPLE_CLASSES", "new")
        assert new["selection"]["epoch"] == ORACLE
        said = f"Test images of Folder have chosen the epoch. Say so beside the number, or train with {LAST_STEP}."
        assert said in new["warnings"]

    def test_of_hyperparameters(self, rules, tmp_path):
        assert rules("full", *PROBE, *FULL_VAL, *ONE_SHOT, *ALLOWED) == (NONE, FULL)
        assert rules("again", *PROBE, *loading(tmp_path / "full")) == (NONE, FULL)

    @pytest.mark.parametrize(
        ("pairs", "val_is_test", "rule"),
        [((), False, NONE), (BEST_VAL, False, FEW_SHOT), (BEST_VAL, True, ORACLE), ((*BEST_VAL, *ALL), False, FULL)],
    )
    def test_of_a_run_that_does_not_say_it(self, run, rules, tmp_path, monkeypatch, pairs, val_is_test, rule):
        """As results of earlier versions: its config tells."""
        monkeypatch.setattr(Folder, "val_is_test", val_is_test)
        run("old", *pairs, "OPTIM.MAX_EPOCH", 1, *ALLOWED)
        path = tmp_path / "old/results.json"
        results = json.loads(path.read_text())
        del results["selection"], results["setting"], results["digests"]
        path.write_text(json.dumps(results))
        before = path.read_text()
        run("old", *pairs, "OPTIM.MAX_EPOCH", 1)  # done already
        assert path.read_text() == before
        load = () if pairs else ("RUN.LOAD_EPOCH", 1)
        assert rules("new", *loading(tmp_path / "old", *load)) == (rule, NONE)

    def test_of_nothing_and_of_a_folder_without_config(self, rules, tmp_path):
        assert rules("zero", "TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True) == (NONE, NONE)
        rules("run")
        (tmp_path / "run/config.yaml").unlink()
        (tmp_path / "run/results.json").unlink()
        assert rules("bare", *loading(tmp_path / "run", "RUN.LOAD_EPOCH", 2)) == (None, None)


def log(folder):
    return (folder / "log.txt").read_text()


def test_best_test_deploys_the_epoch_with_the_best_test(run, tmp_path):
    """The log has the accuracy of each epoch."""
    results = run("run", *WAVERING, *BEST_TEST, *ALLOWED)
    training, end = log(tmp_path / "run").split("Finish training")
    assert training.count("Evaluate on the *test* set") == 6 and "Deploy the model with the best test" in end
    hits = [int(n) for n in re.findall(r"\* correct: (\d+)", training)]
    assert len(hits) == 6 and hits.index(max(hits)) < 5 and hits[0] < max(hits), hits  # neither the last nor the first
    assert (results["epoch"], results["correct"]) == (hits.index(max(hits)) + 1, max(hits))


class TestSetting:
    def test_open_world(self, run, tmp_path):
        base = ("DATASET.SUBSAMPLE_CLASSES", "base")
        assert run("base", *base)["setting"] == []
        test = loading(tmp_path / "base", "RUN.LOAD_EPOCH", 2)
        for subset, setting in (("base", []), ("new", []), ("all", ["open-world"])):
            assert run(f"on {subset}", *test, "DATASET.SUBSAMPLE_CLASSES", subset)["setting"] == setting
        assert "\nSetting: open-world\n" in log(tmp_path / "on all")

    def test_transductive(self, run, tmp_path, register):
        class Transductive(CoOp):
            transductive = True

        register(TRAINER_REGISTRY, Transductive, "CoOp")
        assert run("run")["setting"] == ["transductive"]
        assert "\nSetting: transductive\n" in log(tmp_path / "run")


def digest(content):
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # the config's defaults


class TestDigests:
    def test_by_hand(self, run, tmp_path):
        """So they are the same in every process and on every machine."""
        crop = ["random_resized_crop", [32.0, 32.0], [0.08, 1.0], "bilinear"]
        train = digest([crop, ["random_flip"], ["normalize", MEAN, STD], ["views", 0, 1]])
        test = digest([["crop", [32.0, 32.0], "bilinear"], ["normalize", MEAN, STD]])
        assert run("run")["digests"] == {"templates": None, "train_transform": train, "test_transform": test}
        again = run("again", *loading(tmp_path / "run", "RUN.LOAD_EPOCH", 2), "INPUT.VIEWS", 3)
        assert again["digests"] == {"templates": None, "train_transform": train, "test_transform": test}

    @pytest.mark.parametrize(
        ("pairs", "differing"),
        [
            (("INPUT.VIEWS", 1), {"train_transform"}),
            (("INPUT.RRCROP_SCALE", (0.5, 1.0)), {"train_transform"}),
            (("INPUT.RESIZE", "squash"), {"test_transform"}),
            (("INPUT.INTERPOLATION", "bicubic"), {"train_transform", "test_transform"}),
            (("INPUT.PIXEL_STD", [0.229, 0.224, 0.226]), {"train_transform", "test_transform"}),
            (("INPUT.PIXEL_STD", (0.229, 0.224, 0.225), "INPUT.CUTOUT_N", 3, "INPUT.GB_K", 5), set()),
        ],
        ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
    )
    def test_what_changes_them(self, run, pairs, differing):
        plain, changed = run("plain")["digests"], run("changed", *pairs)["digests"]
        assert {name for name in plain if plain[name] != changed[name]} == differing

    def test_templates(self, run, register):
        zero_shot = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
        found = run("zero", *zero_shot)["digests"]
        assert found["templates"] == digest(["a photo of a {}."]) and found["train_transform"] is None
        for name in ("KgCoOp", "ProGrad", "TaskRes"):
            pairs = ("TRAINER.NAME", name, f"TRAINER.{name.upper()}.PREC", "fp32", "OPTIM.MAX_EPOCH", 1)
            assert run(name, *pairs)["digests"]["templates"] == digest(["a photo of a {}."])

        class Listed(CoOp):  # as the original's ZeroshotCLIP2
            templates = ["a {}.", "the {}."]

        register(TRAINER_REGISTRY, Listed, "CoOp")
        assert run("list")["digests"]["templates"] == digest(["a {}.", "the {}."])

    def test_transforms_of_the_methods_own_have_none(self, run, register):
        class OwnTransform(CoOp):
            def build_data_loader(self):
                super().build_data_loader()
                transform = self.dm.test_loader.dataset.transforms[0]
                self.dm = type(self.dm)(self.cfg, custom_tfm_test=transform)

        register(TRAINER_REGISTRY, OwnTransform, "CoOp")
        assert run("run")["digests"] == dict.fromkeys(("templates", "train_transform", "test_transform"))
