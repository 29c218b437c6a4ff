"""reports/experiments.py against the scripts and the configs that it speaks of."""

import re
import shlex

import pytest
import yaml

import datasets  # noqa: F401  registers the data sets
import train
import trainers  # noqa: F401  registers the trainers
from engine import DATASET_REGISTRY, TRAINER_REGISTRY
from engine.config.load import read_yaml
from reports.experiments import (
    DATASETS,
    FEW_SHOTS,
    N_CLASSES,
    NAMES,
    STEPS,
    base_classes,
    coop_config,
    few_shot,
    max_epoch,
    new_classes,
    transfer,
)
from reports.tables.catalogue import GROUPS, TABLES, commands, select
from tests.support.script_calls import ROOT, call
from tests.support.script_calls import commands as calls

EXPERIMENTS = list(dict.fromkeys(experiment for table in TABLES.values() for experiment in table.experiments))


def kinds():
    """One experiment for each script and set of variables that is called."""
    found = {
        re.sub(r"\.sh .*", ".sh", e.commands[-1]): e for e in EXPERIMENTS if "interpret_prompt" not in e.commands[-1]
    }
    return [pytest.param(experiment, id=kind) for kind, experiment in found.items()]


def dry_run(line, **environment):
    """The folders of the runs that a command line would make."""
    parts = shlex.split(line)
    variables = dict(word.split("=") for word in parts[: parts.index("bash")])
    script, *arguments = parts[parts.index("bash") + 1 :]
    result = call(script.removeprefix("scripts/"), shlex.join(arguments), **environment, **variables)
    assert result.returncode == 0, result.stderr
    return re.findall(r"--output-dir (\S+)", result.stdout)


@pytest.mark.parametrize("experiment", kinds())
def test_the_runs_lie_where_the_scripts_put_them(experiment):
    seeds = ["4", "7"] if experiment.seeded else ["1"]
    lines = dict.fromkeys(experiment.commands[-1].replace("SEED", seed) for seed in seeds)
    made = [folder for line in lines for folder in dry_run(line, SEEDS="4 7", OUTPUT="/runs")]
    runs = [f"/seed{seed}" for seed in seeds] if experiment.seeded else [""]
    assert made == [f"/runs/{experiment.folder}{run}" for run in runs]


def test_the_data_sets_names_are_those_of_their_configs():
    trees = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "configs/datasets").glob("*.yaml")}
    assert NAMES == {name: tree["DATASET"]["NAME"] for name, tree in trees.items() if name != "folder"}


def test_the_numbers_of_classes_are_the_data_sets():
    assert N_CLASSES == {name: DATASET_REGISTRY.get(NAMES[name]).n_classes for name in DATASETS}


class TestSteps:
    """Where authors count steps, of 32 images, a run has the epochs that come nearest to them."""

    @pytest.mark.parametrize("trainer", STEPS)
    def test_few_shots(self, trainer):
        n_steps = TRAINER_REGISTRY.get(trainer).steps_per_shot
        for dataset, n_classes in N_CLASSES.items():
            for shots in FEW_SHOTS:
                [(key, n_epochs)] = few_shot(dataset, trainer, "vit_b16", shots=shots).expected["settings"].items()
                n_batches = len(range(32, shots * n_classes + 1, 32)) or 1  # of whole ones, or else of all images
                off = {n: abs(n * n_batches - n_steps * shots) for n in (n_epochs - 1, n_epochs, n_epochs + 1)}
                assert key == "OPTIM.MAX_EPOCH"
                assert off[n_epochs] == min(off.values()), (dataset, shots)

    def test_numbers_by_hand(self):
        command = few_shot("eurosat", "CLIPLoRA", "vit_b16").commands[0]  # 5 batches, 8,000 steps
        assert command == "TRAINER=CLIPLoRA bash scripts/few_shot.sh eurosat vit_b16 16 OPTIM.MAX_EPOCH 1600"
        command = few_shot("imagenet", "TwoStage", "vit_b16").commands[0]  # 500 batches, 4,800 steps
        assert command == "TRAINER=TwoStage bash scripts/cocoop/xd_train.sh SEED vit_b16_imagenet OPTIM.MAX_EPOCH 10"
        command = base_classes("oxford_pets", "TwoStage", "vit_b16").commands[0]  # 19 classes, 9 batches
        assert command.endswith("base2new_train.sh oxford_pets SEED vit_b16 OPTIM.MAX_EPOCH 533")
        assert "settings" not in few_shot("shapes", "TwoStage", "tiny").expected

    @pytest.mark.parametrize(
        "test",
        [
            new_classes("dtd", "CLIPLoRA", "vit_b16"),
            transfer("dtd", "TwoStage", "vit_b16_imagenet", source="imagenet"),
        ],
        ids=["new classes", "transfer"],
    )
    def test_a_test_loads_the_last_of_these_epochs(self, test, tmp_path):
        """Also while the training, whose config says it, is not done: as reproduce.py plans both."""
        found = []
        for line in test.commands:
            variables, words = re.fullmatch(r"((?:\w+=\w+ )*)bash (.*)", line.replace("SEED", "1")).groups()
            script, *arguments = shlex.split(words)
            environment = dict(word.split("=") for word in variables.split())
            result = call(script.removeprefix("scripts/"), shlex.join(arguments), OUTPUT=str(tmp_path), **environment)
            [words] = calls(result)
            found.append(train.setup_cfg(train.parse_args(words[2:])))
        training, testing = found
        assert training.OPTIM.MAX_EPOCH == testing.RUN.LOAD_EPOCH == test.expected["settings"]["OPTIM.MAX_EPOCH"]
        assert testing.RUN.MODEL_DIR == training.OUTPUT_DIR


def test_epochs_are_the_papers():
    by_shots = {shots: coop_config("rn50", "dtd", shots=shots) for shots in (1, 2, 4, 8, 16)}
    assert by_shots == {1: "rn50_ep50", 2: "rn50_ep100", 4: "rn50_ep100", 8: "rn50", 16: "rn50"}
    assert {coop_config("rn50", "imagenet", shots=shots) for shots in (1, 2, 4, 8, 16)} == {"rn50_ep50"}
    assert coop_config("vit_b16", "imagenet", words=True) == "vit_b16_ep50_ctxv1"
    assert coop_config("tiny", "shapes", shots=1) == "tiny"


@pytest.mark.parametrize("cfg", ["rn50", "rn50_ep50", "rn50_ep100", "tiny"])
def test_the_last_epoch_is_the_configs(cfg):
    assert max_epoch(cfg) == read_yaml(ROOT / "configs" / "trainers" / "CoOp" / f"{cfg}.yaml")["OPTIM.MAX_EPOCH"]


@pytest.mark.parametrize("group", GROUPS)
def test_every_config_that_is_named_exists(group):
    arguments = [line.split(".sh ")[1].split() for line in commands(group) if "interpret_prompt" not in line]
    no_name = r"\d+|True|False|end|middle|front|[A-Z_]+\.[A-Z_.]+"  # the last: the key of a pair
    names = {word for words in arguments for word in words if not re.fullmatch(no_name, word)}
    assert names <= {path.stem for path in (ROOT / "configs").rglob("*.yaml")}


def test_commands_of_a_table_come_once_and_train_before_they_test(monkeypatch):
    monkeypatch.setenv("SEEDS", "5")
    assert commands("shapes_base_to_new") == [
        "SUBSAMPLE=base bash scripts/coop/zeroshot.sh shapes tiny",
        "SUBSAMPLE=new bash scripts/coop/zeroshot.sh shapes tiny",
        "TRAINER=CoOp bash scripts/cocoop/base2new_train.sh shapes 5 tiny_ctxv1",
        "TRAINER=CoOp bash scripts/cocoop/base2new_test.sh shapes 5 tiny_ctxv1",
        "bash scripts/cocoop/base2new_train.sh shapes 5 tiny",
        "bash scripts/cocoop/base2new_test.sh shapes 5 tiny",
    ]
    lines = commands("shapes")
    assert len(lines) == len(set(lines))
    number = {line: i for i, line in enumerate(lines)}
    for experiment in (experiment for table in select(["shapes"]) for experiment in table.experiments):
        numbers = [number[line] for line in experiment.command_lines(["5"])]
        assert numbers == sorted(numbers)


def test_seeds_default_to_the_papers(monkeypatch):
    monkeypatch.delenv("SEEDS", raising=False)
    line = "TRAINER=CoOp bash scripts/cocoop/base2new_train.sh shapes {} tiny_ctx60"
    assert {line.format(seed) for seed in (1, 2, 3)} <= set(commands("shapes_bigger_coop"))
