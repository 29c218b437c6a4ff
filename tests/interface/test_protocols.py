"""The scripts of base-to-new and cross-data-set transfer: their commands, their default configs, and wrong calls."""

import pytest

from engine.config.load import read_yaml
from tests.support.script_calls import ROOT, call, commands, fake_python, words

COCOOP = "vit_b16_c4_ep10_batch1_ctxv1"


def tiny_epochs(trainer):
    return read_yaml(ROOT / f"configs/trainers/{trainer}/tiny.yaml")["OPTIM.MAX_EPOCH"]


DEFAULTS = [  # TRAINER, what it is trained on, CFG, the epoch that a test loads
    ("CoCoOp", "caltech101", COCOOP, 10),
    ("CoCoOp", "imagenet", COCOOP, 10),
    ("CoCoOp", "shapes", "tiny", tiny_epochs("CoCoOp")),
    ("CoOp", "caltech101", "vit_b16_ctxv1", 200),
    ("CoOp", "imagenet", "vit_b16_ep50_ctxv1", 50),
    ("CoOp", "shapes", "tiny", tiny_epochs("CoOp")),
    ("KgCoOp", "caltech101", "vit_b16_ep100_ctxv1", 100),
    ("KgCoOp", "shapes", "tiny", tiny_epochs("CoOp")),
    ("TCP", "imagenet", "vit_b16", 50),
    ("TCP", "shapes", "tiny", tiny_epochs("CoOp")),
    ("ProGrad", "caltech101", "vit_b16_ep100", 100),
    ("ProGrad", "imagenet", "vit_b16_ep50", 50),
    ("LinearProbe", "imagenet", "vit_b16", None),
    ("LinearProbe", "shapes", "tiny", None),
    ("TaskRes", "imagenet", "vit_b16_imagenet", 200),
    ("TaskRes", "dtd", "vit_b16", 200),
    ("CLIPAdapter", "dtd", "vit_b16", 200),
    ("TipAdapter", "dtd", "vit_b16", None),
    ("TipAdapterF", "dtd", "vit_b16", 20),
    ("ZSLP", "dtd", "vit_b16", 300),
    ("CLAP", "imagenet", "vit_b16", 300),
    ("CrossModal", "shapes", "tiny", tiny_epochs("CrossModal")),
    ("MaPLe", "shapes", "tiny", tiny_epochs("MaPLe")),
    ("IVLP", "dtd", "vit_b16_c2_ep5_batch4_2+2ctx", 5),
    ("VPT", "dtd", "vit_b16_c2_ep5_batch4_4", 5),
    ("DeepLanguage", "dtd", "vit_b16_c2_ep5_batch4_4ctx", 5),
    ("CLIPLoRA", "dtd", "vit_b16", 160),
    ("CLIPLoRA", "imagenet", "vit_b16_imagenet", 16),
    ("LayerNormTuning", "dtd", "vit_b16", 96),
    ("LayerNormTuning", "imagenet", "vit_b16_imagenet", 10),
    ("TwoStage", "shapes", "tiny", tiny_epochs("MaPLe")),
    ("TwoStage", "imagenet", "vit_b16_imagenet", 10),
    ("GDA", "dtd", "vit_b16", None),
    ("GDA", "imagenet", "vit_b16_new_classes", None),
    ("LPPlusPlus", "dtd", "vit_b16", None),  # the best epoch
    ("LPPlusPlus", "imagenet", "vit_b16_imagenet", 300),
]
METHOD = """--seed 3 --trainer {trainer} --dataset-config-file configs/datasets/{dataset}.yaml
    --config-file configs/trainers/{trainer}/{cfg}.yaml"""
BASE2NEW = "output/base2new/{half}/{dataset}/shots_16/{trainer}/{cfg}/seed3"
XD_MODEL = "output/{source}/{trainer}/{cfg}_16shots/seed3"
COMMANDS = {
    "base2new_train": f"""train.py --output-dir {BASE2NEW.replace("{half}", "train_base")} {METHOD}
        DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base""",
    "base2new_test": f"""train.py --output-dir {BASE2NEW.replace("{half}", "test_new")} {METHOD}
        --model-dir {BASE2NEW.replace("{half}", "train_base")} --load-epoch EPOCH --eval-only
        DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new""",
    "xd_train": f"train.py --output-dir {XD_MODEL} {METHOD} DATASET.NUM_SHOTS 16",
    "xd_test": f"""train.py --output-dir output/evaluation/{{trainer}}/{{cfg}}_16shots/{{dataset}}/seed3 {METHOD}
        --model-dir {XD_MODEL} --load-epoch EPOCH --eval-only""",
}


def expected(script, *more, epoch=None, **values):
    """The command of a script with SEED 3; without the epoch that is loaded, where there is none."""
    line = words(COMMANDS[script], *more, **values)
    if "EPOCH" in line:
        at = line.index("EPOCH")
        line[at - 1 : at + 1] = [] if epoch is None else ["--load-epoch", str(epoch)]
    return line


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("trainer", "dataset", "cfg", "epoch"), DEFAULTS)
def test_the_default_config_is_that_of_the_data_set_trained_on(trainer, dataset, cfg, epoch):
    values = {"trainer": trainer, "source": dataset, "cfg": cfg, "epoch": epoch}
    data_sets = {"base2new_train": dataset, "base2new_test": dataset, "xd_train": "", "xd_test": "dtd"}
    for script, argument in data_sets.items():
        result = call(f"cocoop/{script}.sh", f"{argument} 3", TRAINER=trainer, SOURCE=dataset)
        assert commands(result) == [expected(script, **values, dataset=argument or dataset)]


@pytest.mark.parametrize("dataset", ["imagenet", "dtd"])
@pytest.mark.parametrize(
    ("trainer", "cfg", "epoch", "epoch_across"),
    [("MaPLe", "vit_b16_c2_ep5_batch4_2ctx", 5, 2), ("PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx", 20, 20)],
)
def test_some_authors_have_other_settings_where_other_data_sets_are_tested(trainer, cfg, epoch, epoch_across, dataset):
    values = {"trainer": trainer, "source": dataset}
    for script in ("base2new_train", "base2new_test"):
        line = expected(script, **values, cfg=cfg, epoch=epoch, dataset=dataset)
        assert commands(call(f"cocoop/{script}.sh", f"{dataset} 3", TRAINER=trainer)) == [line]
    for script, argument in {"xd_train": "", "xd_test": "dtd"}.items():
        across = {"cfg": f"{cfg}_cross_datasets", "epoch": epoch_across, "dataset": argument or dataset}
        result = call(f"cocoop/{script}.sh", f"{argument} 3", TRAINER=trainer, SOURCE=dataset)
        assert commands(result) == [expected(script, **values, **across)]


def test_base_and_new_classes_together():
    [line] = commands(call("cocoop/base2new_test.sh", "dtd 3", SUBSAMPLE="all"))
    wanted = expected("base2new_test", trainer="CoCoOp", cfg=COCOOP, epoch=10, dataset="dtd")
    assert line == [word.replace("test_new", "test_all") for word in wanted[:-1]] + ["all"]


def test_the_environment_may_be_empty():
    values = {"trainer": "CoCoOp", "cfg": COCOOP, "epoch": 10}
    assert commands(call("cocoop/base2new_test.sh", "dtd 3")) == [expected("base2new_test", **values, dataset="dtd")]
    expected_test = expected("xd_test", **values, source="imagenet", dataset="dtd")
    assert commands(call("cocoop/xd_test.sh", "dtd 3")) == [expected_test]


@pytest.mark.parametrize(("script", "arguments"), [(s, "dtd 3" if s != "xd_train" else "3") for s in COMMANDS])
def test_config_shots_data_and_pairs_from_the_caller(tmp_path, script, arguments):
    pairs = ["INPUT.SIZE", "(32, 32)", "USE_CUDA", "False"]
    environment = {"TRAINER": "CoOp", "SHOTS": "4", "DATA": "my data", "OUTPUT": "runs", "SOURCE": "dtd"}
    for cfg in ([], ["rn50"]):
        words_given = f"{arguments} {' '.join(cfg)} INPUT.SIZE '(32, 32)' USE_CUDA False"
        [line] = commands(call(f"cocoop/{script}.sh", words_given, cwd=tmp_path, **environment))
        values = {"trainer": "CoOp", "cfg": (cfg or ["vit_b16_ctxv1"])[0], "dataset": "dtd", "source": "dtd"}
        wanted = " ".join(expected(script, *pairs, epoch=200, **values)[2:]).replace("output/", f"{tmp_path}/runs/")
        wanted = wanted.replace("shots_16", "shots_4").replace("_16shots", "_4shots").replace("SHOTS 16", "SHOTS 4")
        assert line[2:4] == ["--root", f"{tmp_path}/my data"]
        assert " ".join(line[4:]) == wanted


def test_a_test_loads_the_last_epoch_of_the_run_itself(tmp_path):
    folders = {
        "base2new_test": tmp_path / "base2new/train_base/dtd/shots_16/CoOp/rn50/seed3",
        "xd_test": tmp_path / "imagenet/CoOp/rn50_16shots/seed3",
    }
    for script, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("OPTIM:\n  MAX_EPOCH: 7\n")
        [line] = commands(call(f"cocoop/{script}.sh", "dtd 3 rn50", TRAINER="CoOp", OUTPUT=str(tmp_path)))
        assert line[line.index("--model-dir") + 1 : line.index("--eval-only")] == [str(folder), "--load-epoch", "7"]


def test_a_test_loads_the_best_epoch_of_a_run_that_tested_it(tmp_path):
    """Found in the run's config; where there is none yet, in that of the method and what it is based on."""
    folder = tmp_path / "imagenet/CoOp/rn50_16shots/seed3"
    folder.mkdir(parents=True)
    for rule, epoch in (("best_val", []), ("best_test", []), ("last_step", ["--load-epoch", "7"])):
        (folder / "config.yaml").write_text(f"OPTIM:\n  MAX_EPOCH: 7\nTEST:\n  FINAL_MODEL: {rule}\n")
        [line] = commands(call("cocoop/xd_test.sh", "dtd 3 rn50", TRAINER="CoOp", OUTPUT=str(tmp_path)))
        assert line[line.index("--model-dir") + 2 : line.index("--eval-only")] == epoch
    [line] = commands(call("cocoop/xd_test.sh", "dtd 3 vit_b16", TRAINER="LPPlusPlus", OUTPUT=str(tmp_path)))
    assert "--load-epoch" not in line


@pytest.mark.parametrize(
    ("script", "folder", "training"),
    [
        ("base2new_test", "base2new/train_base/dtd/shots_8/CoOp/rn50/seed3", "cocoop/base2new_train.sh dtd 3 rn50"),
        ("xd_test", "dtd/CoOp/rn50_8shots/seed3", "cocoop/xd_train.sh 3 rn50"),
    ],
)
def test_without_a_finished_run_the_training_command_is_named(tmp_path, script, folder, training):
    environment = {"TRAINER": "CoOp", "SHOTS": "8", "SOURCE": "dtd", "OUTPUT": str(tmp_path), "DATA": "/my data"}
    python = fake_python(tmp_path, "echo called")
    result = call(f"cocoop/{script}.sh", "dtd 3 rn50", python=python, **environment, DRY_RUN="0")
    assert (result.returncode, result.stdout) == (1, "")
    source = "SOURCE=dtd " if script == "xd_test" else ""
    assert result.stderr == (
        f"Error: The run {tmp_path}/{folder} does not exist. Train it first: DATA=/my\\ data OUTPUT={tmp_path} "
        f"{source}TRAINER=CoOp SHOTS=8 bash scripts/{training}\n"
    )


@pytest.mark.parametrize("script", COMMANDS)
def test_a_word_that_is_neither_a_config_nor_a_key(script):
    result = call(f"cocoop/{script}.sh", "3 rn51" if script == "xd_train" else "dtd 3 rn51", TRAINER="CoOp")
    assert (result.returncode, result.stdout) == (1, "")
    assert "CFG is rn51, expected one of configs/trainers/CoOp/ or KEY VALUE pairs. There are: rn101 " in result.stderr
    assert " vit_b16_ctxv1 " in result.stderr


def test_a_trainer_without_configs_is_refused():
    result = call("cocoop/xd_train.sh", "3", TRAINER="Coop")
    assert (result.returncode, result.stdout) == (1, "")
    names = " ".join(sorted(path.name for path in (ROOT / "configs/trainers").iterdir()))
    assert f"TRAINER is Coop, expected one of: {names}." in result.stderr
    assert "Another method, such as a PLUGIN's, needs its YAML files in configs/trainers/Coop/." in result.stderr


def test_a_method_of_ones_own_names_its_config(tmp_path):
    own = tmp_path / "configs/trainers/Own"
    own.mkdir(parents=True)
    (own / "rn50.yaml").write_text("OPTIM: {}\n")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "configs/datasets").symlink_to(ROOT / "configs/datasets")
    script = tmp_path / "scripts/cocoop/xd_train.sh"
    result = call(script, "3", cwd=tmp_path, TRAINER="Own")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Own has no default CFG, expected one of: rn50." in result.stderr
    [line] = commands(call(script, "3 rn50", cwd=tmp_path, TRAINER="Own"))
    assert "configs/trainers/Own/rn50.yaml" in line


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2", "TPT"])
@pytest.mark.parametrize(
    ("script", "arguments", "remedy"),
    [
        ("coop/main", "dtd rn50 end 16 1 False", "bash scripts/coop/zeroshot.sh dtd vit_b16"),
        ("cocoop/base2new_train", "dtd 3", "SUBSAMPLE=base bash scripts/coop/zeroshot.sh dtd vit_b16"),
        ("cocoop/base2new_test", "shapes 3", "SUBSAMPLE=new bash scripts/coop/zeroshot.sh shapes tiny"),
        ("cocoop/xd_train", "3", "bash scripts/coop/zeroshot.sh imagenet vit_b16"),
        ("cocoop/xd_test", "shapes_r 3", "bash scripts/coop/zeroshot.sh shapes_r tiny"),
    ],
)
def test_what_trains_nothing_is_sent_to_its_own_script(trainer, script, arguments, remedy):
    result = call(f"{script}.sh", arguments, TRAINER=trainer)
    assert (result.returncode, result.stdout) == (1, "")
    environment = "" if trainer == "ZeroshotCLIP" else f"TRAINER={trainer} "
    assert result.stderr == (
        f"Error: TRAINER is {trainer}, which learns nothing. Test it without training: {environment}{remedy}\n"
    )
