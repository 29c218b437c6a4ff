"""The scripts: the exact commands they start, from any folder; wrong calls; failures that are not hidden."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.script_calls import ROOT, call, commands, fake_python, words

SCRIPTS = sorted([*(ROOT / "scripts").rglob("*.sh"), ROOT / ".ci" / "run"])

MAIN = """train.py --output-dir output/caltech101/CoOp/rn50_ep50_1shots/nctx16_cscFalse_ctpend/seed{seed} --seed {seed}
    --trainer CoOp --dataset-config-file configs/datasets/caltech101.yaml
    --config-file configs/trainers/CoOp/rn50_ep50.yaml
    TRAINER.COOP.N_CTX 16 TRAINER.COOP.CSC False TRAINER.COOP.CLASS_TOKEN_POSITION end DATASET.NUM_SHOTS 1"""
MAIN_ARGUMENTS = "caltech101 rn50_ep50 end 16 1 False"
EVAL = """train.py --output-dir {out}/evaluation/CoOp/{cfg}_16shots/nctx16_cscFalse_ctpend/shapes/seed{seed}
    --seed {seed} --trainer CoOp --dataset-config-file configs/datasets/shapes.yaml
    --config-file configs/trainers/CoOp/{cfg}.yaml
    --model-dir {out}/imagenet/CoOp/{cfg}_16shots/nctx16_cscFalse_ctpend/seed{seed} --load-epoch {epoch} --eval-only
    TRAINER.COOP.N_CTX 16 TRAINER.COOP.CSC False TRAINER.COOP.CLASS_TOKEN_POSITION end"""
ZEROSHOT = """train.py --output-dir output/{folder}/caltech101 --seed 1 --trainer {trainer}
    --dataset-config-file configs/datasets/caltech101.yaml --config-file configs/trainers/{of}/rn50.yaml --eval-only"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_syntax_is_right(script):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    if not script.name.startswith("_"):
        assert script.read_text().startswith("#!/usr/bin/env bash\n# ")
        assert os.access(script, os.X_OK)


def test_main_trains_every_seed():
    assert commands(call("coop/main.sh", MAIN_ARGUMENTS)) == [words(MAIN, seed=seed) for seed in (1, 2, 3)]


def test_few_shot_trains_every_seed_of_any_method():
    line = """train.py --output-dir output/dtd/TipAdapter/rn50_4shots/seed{seed} --seed {seed} --trainer TipAdapter
        --dataset-config-file configs/datasets/dtd.yaml --config-file configs/trainers/TipAdapter/rn50.yaml
        DATASET.NUM_SHOTS 4 TEST.NO_TEST True"""
    found = commands(call("few_shot.sh", "dtd rn50 4 TEST.NO_TEST True", TRAINER="TipAdapter"))
    assert found == [words(line, seed=seed) for seed in (1, 2, 3)]


def test_main_takes_seeds_data_and_pairs_from_the_caller(tmp_path):
    arguments = f"{MAIN_ARGUMENTS} INPUT.SIZE '(48, 48)' OPTIM.MAX_EPOCH 1"
    for data, root in (("my data", f"{tmp_path}/my data"), ("/data/sets", "/data/sets"), ("~/sets", "~/sets")):
        result = call("coop/main.sh", arguments, cwd=tmp_path, DATA=data, SEEDS="7 0", OUTPUT="runs")
        expected = []
        for seed in (7, 0):
            line = words(MAIN, "INPUT.SIZE", "(48, 48)", "OPTIM.MAX_EPOCH", "1", seed=seed)
            line[3] = f"{tmp_path}/runs/{line[3].removeprefix('output/')}"
            expected.append([*line[:2], "--root", root, *line[2:]])
        assert commands(result) == expected


@pytest.mark.parametrize(
    ("plugin", "named"), [("my method.py", "{}/my method.py"), ("/a/b.py", "/a/b.py"), ("pack.method", "pack.method")]
)
def test_a_plug_in_is_that_of_the_caller(tmp_path, plugin, named):
    """Its files are found from the caller's folder, a module from the repository's root, in every script."""
    environment = {"PLUGIN": plugin, "PLUGIN_CONFIG": "my.yaml", "SEEDS": "1", "TRAINER": "CoOp"}
    flags = ["--plugin", named.format(tmp_path), "--plugin-config", f"{tmp_path}/my.yaml"]
    calls = ("coop/main.sh", MAIN_ARGUMENTS), ("coop/eval.sh", "dtd rn50"), ("cocoop/base2new_train.sh", "dtd 1")
    for script, arguments in calls:
        [line] = commands(call(script, arguments, cwd=tmp_path, **environment))
        assert (
            line[4:8] == flags
            and line[:4] + line[8:] == commands(call(script, arguments, SEEDS="1", TRAINER="CoOp"))[0]
        )


def test_the_remedy_names_the_plug_in(tmp_path):
    environment = {"PLUGIN": "m.py", "PLUGIN_CONFIG": "o.yaml", "OUTPUT": "out", "SEEDS": "1", "DRY_RUN": "0"}
    result = call("coop/eval.sh", "shapes rn50", cwd=tmp_path, **environment)
    assert result.returncode == 1
    given = f"PLUGIN={tmp_path}/m.py PLUGIN_CONFIG={tmp_path}/o.yaml OUTPUT={tmp_path}/out SEEDS=1 TRAINER=CoOp"
    assert f"Train it first: {given} bash scripts/coop/main.sh imagenet" in result.stderr


@pytest.mark.parametrize("seeds", ["1,2,3", "1 two"])
def test_seeds_that_are_no_numbers(seeds):
    for script, arguments in (("coop/main.sh", MAIN_ARGUMENTS), ("reproduce.sh", "shapes")):
        result = call(script, arguments, SEEDS=seeds)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f'Error: SEEDS is {seeds}, expected whole numbers such as SEEDS="1 2 3".\n'


@pytest.mark.parametrize(("trainer", "cfg"), [("CoCoOp", "tiny"), ("LinearProbe", "rn50")])
def test_main_sends_methods_without_its_options_to_their_script(trainer, cfg):
    result = call("coop/main.sh", f"dtd {cfg} end 16 4 False", TRAINER=trainer)
    assert (result.returncode, result.stdout) == (1, "")
    message, remedy = result.stderr.strip().split(" Train it with: ")
    assert message == f"Error: TRAINER is {trainer}, which has no CTP, NCTX and CSC."
    assert remedy == f"TRAINER={trainer} SOURCE=dtd SHOTS=4 bash scripts/cocoop/xd_train.sh SEED {cfg}"
    [line] = commands(call("cocoop/xd_train.sh", f"3 {cfg}", TRAINER=trainer, SOURCE="dtd", SHOTS="4"))
    assert line[3] == f"output/dtd/{trainer}/{cfg}_4shots/seed3"


def test_the_options_of_a_method_with_contexts_are_in_the_group_that_the_environment_names():
    environment = {"TRAINER_NODE": "KGCOOP", "SEEDS": "1"}
    pairs = "TRAINER.KGCOOP.N_CTX 16 TRAINER.KGCOOP.CSC False TRAINER.KGCOOP.CLASS_TOKEN_POSITION end".split()
    [line] = commands(call("coop/main.sh", MAIN_ARGUMENTS, **environment))
    assert line[-8:-2] == pairs
    [line] = commands(call("coop/eval.sh", "dtd rn50", **environment))
    assert line[-6:] == pairs
    result = call("coop/eval.sh", "dtd rn50", OUTPUT="/no", DRY_RUN="0", **environment)
    assert "Train it first: TRAINER_NODE=KGCOOP OUTPUT=/no SEEDS=1 TRAINER=CoOp bash" in result.stderr


@pytest.mark.parametrize("trainer", ["KgCoOp", "ProGrad"])
def test_a_method_on_the_same_context_has_the_same_door(trainer):
    [line] = commands(call("coop/main.sh", "dtd tiny end 4 16 False", TRAINER=trainer, SEEDS="1"))
    assert line[line.index("--trainer") + 1] == trainer
    group = f"TRAINER.{trainer.upper()}"
    assert line[-8:-2] == [f"{group}.N_CTX", "4", f"{group}.CSC", "False", f"{group}.CLASS_TOKEN_POSITION", "end"]


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "message"),
    [
        ("coop/main.sh", MAIN_ARGUMENTS, {"TRAINER": "Coop"}, "TRAINER is Coop, {}Did you mean CoOp?"),
        ("coop/eval.sh", "dtd rn50", {"TRAINER": "coop"}, "TRAINER is coop, {}Did you mean CoOp?"),
        ("cocoop/xd_train.sh", "1", {"TRAINER": "CocoOp"}, "TRAINER is CocoOp, {}Did you mean CoCoOp?"),
        ("coop/main.sh", "dtd rn50_ep5 end 16 1 False", {}, "CFG is rn50_ep5, {}Did you mean rn50_ep50?"),
        ("coop/eval.sh", "dtd rn5O", {}, "CFG is rn5O, {}Did you mean rn50?"),
        ("coop/zeroshot.sh", "dtd vitb32", {}, "CFG is vitb32, {}Did you mean vit_b32?"),
        ("cocoop/base2new_train.sh", "dtd 1 vit_b16_ctx1", {"TRAINER": "CoOp"}, "{}Did you mean vit_b16_ctxv1?"),
        ("few_shot.sh", "dtd rn50 4", {"TRAINER": "TaskRess"}, "TRAINER is TaskRess, {}Did you mean TaskRes?"),
        ("linear_probe/main.sh", "dtd rn500 1", {}, "CFG is rn500, {}Did you mean rn50?"),
        ("coop/main.sh", "caltech rn50 end 16 1 False", {}, "DATASET is caltech, {}Did you mean caltech101?"),
        ("cocoop/base2new_test.sh", "shape 1", {}, "DATASET is shape, {}Did you mean shapes?"),
        ("cocoop/xd_train.sh", "1", {"SOURCE": "image_net"}, "SOURCE is image_net, {}Did you mean imagenet?"),
        ("coop/zeroshot.sh", "something_else rn50", {}, "DATASET is something_else, expected one of configs/datasets/"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_near_one(script, arguments, environment, message):
    result = call(script, arguments, python=sys.executable, **environment)
    assert (result.returncode, result.stdout) == (1, "")
    start, _, end = message.partition("{}")
    assert result.stderr.startswith(f"Error: {start}") and end in result.stderr


@pytest.mark.parametrize(
    ("environment", "folder", "pairs"),
    [
        ({}, "ZeroshotCLIP/rn50", []),
        ({"TRAINER": "ZeroshotCLIP2"}, "ZeroshotCLIP2/rn50", []),
        ({"TRAINER": "TPT"}, "TPT/rn50", []),
        ({"TRAINER": "TPT", "SUBSAMPLE": "new"}, "TPT/rn50_new", ["DATASET.SUBSAMPLE_CLASSES", "new"]),
        ({"SUBSAMPLE": "base"}, "ZeroshotCLIP/rn50_base", ["DATASET.SUBSAMPLE_CLASSES", "base"]),
        ({"SUBSAMPLE": "new"}, "ZeroshotCLIP/rn50_new", ["DATASET.SUBSAMPLE_CLASSES", "new"]),
    ],
)
def test_zeroshot(environment, folder, pairs):
    trainer = environment.get("TRAINER", "ZeroshotCLIP")
    of = "TPT" if trainer == "TPT" else "CoOp"
    expected = words(ZEROSHOT, *pairs, folder=folder, trainer=trainer, of=of)
    assert commands(call("coop/zeroshot.sh", "caltech101 rn50", **environment)) == [expected]


@pytest.mark.parametrize(("cfg", "epoch"), [("rn50", 200), ("rn50_ep50", 50), ("vit_b16_ep100_ctxv1", 100)])
def test_eval_loads_the_last_epoch_of_the_config(tmp_path, cfg, epoch):
    result = call("coop/eval.sh", f"shapes {cfg}", OUTPUT=str(tmp_path))
    assert commands(result) == [words(EVAL, cfg=cfg, epoch=epoch, seed=seed, out=tmp_path) for seed in (1, 2, 3)]


@pytest.mark.parametrize(("cfg", "trained"), [("rn50", "rn50_ep50"), ("vit_b16_ctxv1", "vit_b16_ep50_ctxv1")])
def test_eval_names_and_uses_the_50_epochs_where_only_they_were_trained(tmp_path, cfg, trained):
    (tmp_path / f"imagenet/CoOp/{trained}_16shots/nctx16_cscFalse_ctpend/seed1").mkdir(parents=True)
    result = call("coop/eval.sh", f"shapes {cfg}", OUTPUT=str(tmp_path), SEEDS="1")
    assert commands(result) == [words(EVAL, cfg=trained, epoch=50, seed=1, out=tmp_path)]
    assert f"{trained} is tested instead of {cfg}" in result.stderr


def test_eval_tests_the_run_that_the_environment_names():
    environment = {"SOURCE": "shapes", "SHOTS": "4", "NCTX": "8", "CSC": "True", "CTP": "middle", "SEEDS": "5"}
    [line] = commands(call("coop/eval.sh", "caltech101 tiny", **environment))
    name = "CoOp/tiny_4shots/nctx8_cscTrue_ctpmiddle"
    assert line[line.index("--model-dir") + 1] == f"output/shapes/{name}/seed5"
    assert line[line.index("--output-dir") + 1] == f"output/evaluation/{name}/caltech101/seed5"
    assert line[-6:] == "TRAINER.COOP.N_CTX 8 TRAINER.COOP.CSC True TRAINER.COOP.CLASS_TOKEN_POSITION middle".split()


def test_eval_tests_the_seeds_that_were_trained_and_says_how_to_train_the_others(tmp_path):
    folder = tmp_path / "imagenet/CoOp/rn50_16shots/nctx16_cscFalse_ctpend"
    for seed, file in ((1, "config.yaml"), (2, "results.json"), (4, "prompt_learner/model.pth.tar-200")):
        path = folder / f"seed{seed}" / file  # not finished; finished; of the original, which wrote neither of these
        path.parent.mkdir(parents=True)
        path.touch()
    python = fake_python(tmp_path, "echo $5")
    result = call("coop/eval.sh", "shapes rn50", python=python, DRY_RUN="0", OUTPUT=str(tmp_path), SEEDS="1 2 3 4")
    assert (result.returncode, result.stdout.split()) == (1, ["2", "4"])
    remedy = f"OUTPUT={tmp_path} SEEDS={{}} TRAINER=CoOp bash scripts/coop/main.sh imagenet rn50 end 16 16 False\n"
    begun = f"The run {folder}/seed1 was begun and is not finished. Train it first: "
    assert begun + remedy.format(1) in result.stderr
    missing = f"The run {folder}/seed3 does not exist. Train it first: "
    assert missing + remedy.format(3) in result.stderr
    assert result.stderr.count("Error: ") == 2


def test_quickstart_is_zero_shot_then_three_seeds_of_coop(tmp_path):
    copy = copy_of_the_scripts(tmp_path)
    (copy / ".venv/bin").mkdir(parents=True)
    (copy / ".venv/bin/python").symlink_to(sys.executable)
    shutil.copy(ROOT / "setup.py", copy / ".venv/setup.py")  # as installed
    lines = commands(call(copy / "scripts/quickstart.sh", cwd=tmp_path))
    assert [line[0] for line in lines] == [".venv/bin/python"] * 4
    assert [line[3] for line in lines] == [
        "output/ZeroshotCLIP/tiny/shapes",
        *(f"output/shapes/CoOp/tiny_16shots/nctx16_cscFalse_ctpend/seed{seed}" for seed in (1, 2, 3)),
    ]


def test_a_dry_run_of_quickstart_installs_nothing(tmp_path):
    copy = copy_of_the_scripts(tmp_path)
    venv, install, *calls = commands(call(copy / "scripts/quickstart.sh", python=sys.executable, cwd=tmp_path))
    assert venv == [sys.executable, "-m", "venv", ".venv"]
    assert install == [".venv/bin/python", "-m", "pip", "install", "--editable", "."]
    assert [line[:2] for line in calls] == [[".venv/bin/python", "train.py"]] * 4
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("coop/main.sh", "", "there are 0 arguments, expected 6 and then KEY VALUE pairs"),
        ("coop/main.sh", "shapes tiny end 16 1", "there are 5 arguments, expected 6"),
        ("coop/main.sh", f"{MAIN_ARGUMENTS} OPTIM.MAX_EPOCH", "there are 7 arguments, expected 6"),
        ("coop/eval.sh", "shapes", "there are 1 arguments, expected 2"),
        ("coop/zeroshot.sh", "shapes tiny x", "there are 3 arguments, expected 2"),
        ("quickstart.sh", "shapes", "there are 1 arguments, expected 0"),
        ("coop/main.sh", f"{MAIN_ARGUMENTS} OPTIM.LR 1 --seed 1", "--seed is a flag; a script takes none."),
        ("cocoop/xd_train.sh", "1 --output-dir here", "--output-dir is a flag; a script takes none."),
        ("coop/zeroshot.sh", "shapes tiny", "SUBSAMPLE is bass, expected base, new or nothing."),
        ("cocoop/base2new_train.sh", "", "there are 0 arguments, expected DATASET SEED, then [CFG] [KEY VALUE ...]"),
        ("cocoop/base2new_test.sh", "dtd", "there are 1 arguments, expected DATASET SEED, then"),
        ("cocoop/xd_train.sh", "", "there are 0 arguments, expected SEED, then [CFG]"),
        ("cocoop/xd_test.sh", "3", "there are 1 arguments, expected DATASET SEED, then"),
        ("cocoop/base2new_train.sh", "3 dtd", "SEED is dtd, expected a whole number."),
        ("cocoop/xd_train.sh", "rn50 3", "SEED is rn50, expected a whole number."),
        ("cocoop/xd_train.sh", "3 SEED", "SEED has no value, expected KEY VALUE pairs after CFG vit_b16_ep50_ctxv1."),
        ("cocoop/xd_test.sh", "dtd 3 rn50 SEED", "SEED has no value, expected KEY VALUE pairs after CFG rn50."),
    ],
)
def test_a_wrong_call_is_answered_with_the_usage(script, arguments, message):
    result = call(script, arguments, cwd=ROOT / "tests", TRAINER="CoOp", SUBSAMPLE="bass")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"Error: {message}" in result.stderr
    assert f"  bash scripts/{script}" in result.stderr


def copy_of_the_scripts(tmp_path):
    """A repository with the real scripts, their YAML files and nothing behind them."""
    copy = tmp_path / "copy"
    for folder in ("scripts", ".ci", "configs"):
        shutil.copytree(ROOT / folder, copy / folder)
    shutil.copy(ROOT / "setup.py", copy)
    return copy


def test_a_failed_seed_is_named_and_the_others_still_run(tmp_path):
    fails_at_2 = fake_python(tmp_path, 'mkdir -p "$3"; touch "$3/config.yaml"; echo "$5"; [[ $5 != 2 ]]')
    result = call("coop/main.sh", MAIN_ARGUMENTS, python=fails_at_2, DRY_RUN="0", OUTPUT=str(tmp_path))
    assert (result.returncode, result.stdout.split()) == (1, ["1", "2", "3"])
    assert f"Failed: {tmp_path}/caltech101/CoOp/rn50_ep50_1shots/nctx16_cscFalse_ctpend/seed2\n" in result.stderr
    assert "seed1" not in result.stderr
    assert "seed3" not in result.stderr
    assert "First do what the error says. Finished runs are kept: called again, the command does" in result.stderr


def test_what_fails_before_it_starts_is_not_tried_with_every_seed(tmp_path):
    result = call("coop/main.sh", MAIN_ARGUMENTS, python=fake_python(tmp_path, "echo called; exit 1"), DRY_RUN="0")
    assert (result.returncode, result.stdout.split()) == (1, ["called"])
    assert "seed1" in result.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('[[ $1 == --version ]] && echo "Python 3.8.1"', "is Python 3.8.1; Python 3.10 or newer is needed"),
        ('[[ $1 == --version || $2 != *ensurepip* ]] && echo "Python 3.11.2"', "sudo apt install python3-venv"),
    ],
)
def test_a_python_that_cannot_make_an_environment(tmp_path, body, message):
    copy = copy_of_the_scripts(tmp_path)
    environment = {**os.environ, "PYTHON": fake_python(tmp_path, body)}
    for script in ("quickstart.sh", "test.sh"):
        command = ["bash", copy / "scripts" / script]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1
        assert message in result.stderr
        assert not (copy / ".venv").exists()


def test_an_environment_without_pip_is_left_alone(tmp_path):
    copy = copy_of_the_scripts(tmp_path)
    (copy / ".venv/bin").mkdir(parents=True)
    shutil.copy(fake_python(tmp_path, "exit 1"), copy / ".venv/bin/python")
    result = subprocess.run(["bash", copy / "scripts/test.sh"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert f"Error: {copy}/.venv has no pip. Delete .venv, then call this script again." in result.stderr


@pytest.fixture
def tools(tmp_path):
    """A folder of the few programs that .ci/run calls, without a browser; apt-get notes its arguments and fails."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("bash", "dirname", "timeout"):
        (folder / name).symlink_to(shutil.which(name))
    (folder / "apt-get").write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexit 1\n')
    (folder / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for name in ("apt-get", "sudo"):
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def with_browser(tools, monkeypatch):
    """.ci/run finds a browser, so it installs none."""
    (tools / "chromium").touch(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)


def test_continuous_integration_installs_a_browser_where_it_may_and_goes_on_where_not(tmp_path, tools):
    copy = copy_of_the_scripts(tmp_path)
    (copy / "scripts/test.sh").write_text("exit 3")
    environment = {**os.environ, "PATH": str(tools)}
    result = subprocess.run([copy / ".ci/run"], env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")
    assert (tools / "asked").read_text().splitlines() == ["update", "install -y --no-install-recommends chromium"]


@pytest.mark.usefixtures("with_browser")
@pytest.mark.parametrize("fails", ["", "ruff", "pytest"])
@pytest.mark.parametrize(
    ("words", "passed_on"),
    [
        (["quick", "-k", "coop"], "-m not slow and not real_data and not robust -k coop"),
        (["robust"], "-m robust"),
        (["-n", "0", "tests/engine"], "-n 0 tests/engine"),
    ],
)
def test_continuous_integration_lints_then_tests_and_passes_failures_on(tmp_path, fails, words, passed_on):
    copy = copy_of_the_scripts(tmp_path)
    (copy / ".venv/bin").mkdir(parents=True)
    shutil.copy(fake_python(tmp_path, f'echo "$@"; [[ $2 != "{fails}" ]]'), copy / ".venv/bin/python")
    shutil.copy(ROOT / "setup.py", copy / ".venv/setup.py[test]")  # as installed
    result = subprocess.run([copy / ".ci/run", *words], capture_output=True, text=True, timeout=60)
    lint, check, test = [*result.stdout.splitlines(), "", ""][:3]
    assert (lint, result.returncode) == ("-m ruff check .", 1 if fails else 0)
    if fails != "ruff":
        assert check == "-m ruff format --check ."
        assert test == f"-m pytest --numprocesses auto --maxprocesses 8 --dist loadfile {passed_on}"


@pytest.mark.usefixtures("with_browser")
def test_continuous_integration_takes_the_real_data_that_lie_beside_the_checkout(tmp_path):
    copy, data = copy_of_the_scripts(tmp_path), tmp_path / "shared/data"
    (copy / "scripts/test.sh").write_text('echo "data: ${COOP_DATA:-}"; exit 3')
    environment = {name: value for name, value in os.environ.items() if name != "COOP_DATA"}
    for expected in ("", data):
        result = subprocess.run([copy / ".ci/run"], env=environment, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout) == (3, f"data: {expected}\n")
        data.mkdir(parents=True, exist_ok=True)
