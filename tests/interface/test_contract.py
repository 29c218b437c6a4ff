"""What scripts, papers and users rely on, as lists written by hand: a name that goes breaks somebody's work.

Flags, config keys, script arguments, files and lines of a run, entries of its files, names in Python. Paths of runs are
frozen in test_scripts.py and test_protocols.py, the names of transforms in test_transforms.py.
"""

import importlib
import json
import re

import pytest
import torch

import train
from engine import DATASET_REGISTRY, TRAINER_REGISTRY
from engine.config.load import flatten, full_default
from tests.support.script_calls import ROOT
from tests.support.tiny_run import tiny_cfg

FLAGS_OF_THE_ORIGINAL = """
    --root --output-dir --resume --seed --source-domains --target-domains --transforms --config-file
    --dataset-config-file --trainer --backbone --head --eval-only --model-dir --load-epoch --no-train
"""
FLAGS_OF_OURS = "--plugin --plugin-config --deterministic"

# Node: keys. The original's and Dassl's come first, ours after the bar.
KEYS = """
    : VERSION OUTPUT_DIR RESUME SEED USE_CUDA VERBOSE |
    RUN: | CFG PLUGINS EVAL_ONLY MODEL_DIR LOAD_EPOCH DETERMINISTIC
    INPUT: SIZE INTERPOLATION TRANSFORMS NO_TRANSFORM PIXEL_MEAN PIXEL_STD CROP_PADDING RRCROP_SCALE CUTOUT_N CUTOUT_LEN
      GN_MEAN GN_STD RANDAUGMENT_N RANDAUGMENT_M COLORJITTER_B COLORJITTER_C COLORJITTER_S COLORJITTER_H RGS_P GB_P GB_K
      | VIEWS ON_BAD_IMAGE
    DATASET: ROOT NAME NUM_SHOTS SUBSAMPLE_CLASSES SOURCE_DOMAINS TARGET_DOMAINS NUM_LABELED VAL_PERCENT
      ALL_AS_UNLABELED STL10_FOLD CIFAR_C_TYPE CIFAR_C_LEVEL | FEWSHOT_FILE CLASSNAMES
    DATALOADER: NUM_WORKERS K_TRANSFORMS RETURN_IMG0 | CACHE_GB
    DATALOADER.TRAIN_X: SAMPLER BATCH_SIZE N_DOMAIN N_INS |
    DATALOADER.TRAIN_U: SAME_AS_X SAMPLER BATCH_SIZE N_DOMAIN N_INS |
    DATALOADER.TEST: SAMPLER BATCH_SIZE |
    FEATURES: | DIR MAX_GB
    MODEL: INIT_WEIGHTS | CHANNELS_LAST
    MODEL.BACKBONE: NAME PRETRAINED |
    MODEL.HEAD: NAME HIDDEN_LAYERS ACTIVATION BN DROPOUT |
    OPTIM: NAME LR WEIGHT_DECAY MOMENTUM SGD_DAMPNING SGD_NESTEROV RMSPROP_ALPHA ADAM_BETA1 ADAM_BETA2 STAGED_LR
      NEW_LAYERS BASE_LR_MULT LR_SCHEDULER STEPSIZE GAMMA MAX_EPOCH WARMUP_EPOCH WARMUP_TYPE WARMUP_CONS_LR
      WARMUP_MIN_LR WARMUP_RECOUNT |
    TRAIN: CHECKPOINT_FREQ PRINT_FREQ COUNT_ITER | RESUME_EVERY_S
    TEST: EVALUATOR PER_CLASS_RESULT COMPUTE_CMAT NO_TEST SPLIT FINAL_MODEL | ON_BAD_IMAGE
    TRAINER: NAME |
    TRAINER.COOP: N_CTX CSC CTX_INIT PREC CLASS_TOKEN_POSITION | CHUNK_ROWS SHARD_CLASSES
    TRAINER.COCOOP: N_CTX CTX_INIT PREC | CHUNK_ROWS
    TRAINER.ZSCLIP: | PREC TEMPLATES
    TRAINER.LINEAR_PROBE: | PREC
"""

USAGES = {
    "coop/main.sh": "DATASET CFG CTP NCTX SHOTS CSC [KEY VALUE ...]",
    "coop/eval.sh": "DATASET CFG [KEY VALUE ...]",
    "coop/zeroshot.sh": "DATASET CFG [KEY VALUE ...]",
    "cocoop/base2new_train.sh": "DATASET SEED [CFG] [KEY VALUE ...]",
    "cocoop/base2new_test.sh": "DATASET SEED [CFG] [KEY VALUE ...]",
    "cocoop/xd_train.sh": "SEED [CFG] [KEY VALUE ...]",
    "cocoop/xd_test.sh": "DATASET SEED [CFG] [KEY VALUE ...]",
    "linear_probe/main.sh": "DATASET CFG SHOTS [KEY VALUE ...]",
    "linear_probe/eval.sh": "DATASET CFG [KEY VALUE ...]",
}

FILES = """log.txt config.yaml results.json tensorboard prompt_learner prompt_learner/checkpoint
    prompt_learner/model.pth.tar-1 prompt_learner/model.pth.tar-2 prompt_learner/model-best.pth.tar"""
LOG_LINES = [
    r"Loading CLIP \(backbone: .+\)",
    r"epoch \[2/2\] batch \[3/3\] .*loss \d+\.\d{4} \(\d+\.\d{4}\) .*lr \d\.\d{4}e-\d\d.*",
    r"Finish training",
    r"=> result",
    r"\* total: 9",
    r"\* correct: \d",
    r"\* accuracy: \d+\.\d\d%",
    r"\* error: \d+\.\d\d%",
    r"\* macro_f1: \d+\.\d\d%",
]
RESULTS = """accuracy error_rate macro_f1 total correct trainer dataset source seed shots cfg backbone n_ctx csc
    class_token_position subsample epoch config_digest"""
CHECKPOINT = "state_dict epoch optimizer scheduler val_result"
STATE_DICT = {
    "CoOp": "ctx token_prefix token_suffix",
    "CoCoOp": """ctx token_prefix token_suffix meta_net.linear1.weight meta_net.linear1.bias meta_net.linear2.weight
        meta_net.linear2.bias""",
}

PYTHON = {
    "engine": """TRAINER_REGISTRY DATASET_REGISTRY TrainerX Datum DatasetBase build_optimizer build_lr_scheduler
        get_cfg_default compute_accuracy load_checkpoint load_pretrained_weights set_random_seed""",
    "clip": "available_models load tokenize build_model",
    "clip.clip": "available_models load tokenize _MODELS _download",
    "clip.model": "CLIP build_model convert_weights",
    "clip.simple_tokenizer": "SimpleTokenizer",
    "trainers.coop": "PromptLearner CustomCLIP TextEncoder CoOp load_clip_to_cpu",
    "trainers.cocoop": "PromptLearner CustomCLIP CoCoOp",
    "trainers.zsclip": "ZeroshotCLIP ZeroshotCLIP2",
    "trainers.linear_probe": "LinearProbe",
    "parse_test_res": "main",
    "interpret_prompt": "main",
    "train": "main",
}
TRAINERS = "CoOp CoCoOp ZeroshotCLIP ZeroshotCLIP2 LinearProbe"
DATASETS = """Caltech101 OxfordPets StanfordCars OxfordFlowers Food101 FGVCAircraft SUN397 DescribableTextures EuroSAT
    UCF101 ImageNet ImageNetV2 ImageNetSketch ImageNetA ImageNetR Folder Shapes"""


def test_flags(capsys):
    with pytest.raises(SystemExit):
        train.parse_args(["--help"])
    there = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", capsys.readouterr().out))
    assert set((FLAGS_OF_THE_ORIGINAL + FLAGS_OF_OURS).split()) <= there


def test_config_keys():
    names = set()
    for node, keys in re.findall(r"^    (\S*): (.*(?:\n      .*)*)", KEYS, re.MULTILINE):
        names |= {f"{node}.{key}".lstrip(".") for key in keys.replace("|", " ").split()}
    assert len(names) > 110
    assert sorted(names - set(flatten(full_default(with_plugins=False)))) == []


@pytest.mark.parametrize("script", USAGES)
def test_script_arguments(script):
    header = (ROOT / "scripts" / script).read_text(encoding="utf-8").split("\nsource")[0]
    assert f"#   bash scripts/{script} {USAGES[script]}\n" in header


@pytest.fixture(scope="module", params=["CoOp", "CoCoOp"])
def finished(request, tmp_path_factory, tiny_files):
    """The trainer's name and the folder of its finished run."""
    folder, pairs = tmp_path_factory.mktemp("run"), ("TRAIN.CHECKPOINT_FREQ", 1, "TEST.FINAL_MODEL", "best_val")
    node = {"CoOp": "COOP", "CoCoOp": "COCOOP"}[request.param]
    pairs += ("TRAINER.NAME", request.param, f"TRAINER.{node}.N_CTX", 2, f"TRAINER.{node}.PREC", "fp32")
    try:
        train.run(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], folder / "run", *pairs))
    finally:
        train.close_logging()
    return request.param, folder / "run"


class TestRun:
    def test_files(self, finished):
        there = {path.relative_to(finished[1]).as_posix() for path in finished[1].rglob("*")}
        assert set(FILES.split()) <= there

    def test_log_lines(self, finished):
        lines = (finished[1] / "log.txt").read_text().splitlines()
        start = 0
        for pattern in LOG_LINES:  # in this order
            start = next((i for i in range(start, len(lines)) if re.fullmatch(pattern, lines[i])), None)
            assert start is not None, pattern

    def test_results(self, finished):
        results = json.loads((finished[1] / "results.json").read_text())
        assert set(RESULTS.split()) <= set(results)
        assert {results[key] for key in ("trainer", "source")} == {finished[0], "Folder"}

    def test_checkpoints(self, finished):
        name, folder = finished
        checkpoint = torch.load(folder / "prompt_learner" / "model.pth.tar-2", weights_only=True)
        assert set(CHECKPOINT.split()) <= set(checkpoint)
        assert set(checkpoint["state_dict"]) == set(STATE_DICT[name].split())
        assert (folder / "prompt_learner" / "checkpoint").read_text() == "model.pth.tar-2\n"


@pytest.mark.parametrize("module", PYTHON)
def test_names_in_python(module):
    there = importlib.import_module(module)
    assert [name for name in PYTHON[module].split() if not hasattr(there, name)] == []


def test_trainers_and_data_sets():
    assert set(TRAINERS.split()) <= set(TRAINER_REGISTRY.registered_names())
    assert set(DATASETS.split()) <= set(DATASET_REGISTRY.registered_names())
