"""What scripts, papers and users rely on, as lists written by hand: a name that goes breaks somebody's work.

Flags, config keys with their defaults, arguments and environment variables of scripts, a run's files and log lines,
the entries of its files, names in Python. Paths of runs are frozen in test_scripts.py and test_protocols.py, names of
transforms in test_transforms.py.
"""

import importlib
import json
import re

import pytest
import torch
import yaml
from yacs.config import CfgNode as CN

import train
from engine import DATASET_REGISTRY, TRAINER_REGISTRY
from engine.config.load import flatten, full_default
from tests.support.script_calls import ROOT
from tests.support.tiny_run import tiny_cfg

PROGRAMS = {  # module: its flags and the names of its arguments; train.py's first line is the original's
    "train": """--root --output-dir --resume --seed --source-domains --target-domains --transforms --config-file
        --dataset-config-file --trainer --backbone --head --eval-only --model-dir --load-epoch --no-train
        --plugin --plugin-config --deterministic --save-logits KEY VALUE""",
    "sweep": """--dataset --shots --seeds --cfg --trainer --plugin --plugin-config --nctx --csc --ctp --grid --views
        --paper-epochs --root --output-dir --jobs --launcher --gpus-per-run --dry-run KEY VALUE""",
    "reproduce": "TABLE --output-dir --jobs --dry-run",
    "report": "TABLE --output-dir --run --format --out",
    "draw_curves": "--output-dir --dataset --backbone --shots --out",
    "parse_test_res": "directory --ci95 --test-log --multi-exp --keyword",
    "demo": "RUN --topk --epoch --device --host --port --share",
    "export": "RUN --out --format --precision --epoch",
    "predict": "RUN IMAGE --topk --format --out --classnames --threshold --epoch --device --no-cache",
    "interpret_prompt": "FPATH TOPK --json --output --backbone --class",
    "datasets.prepare": "NAME --root --from --dry-run --export-fewshot --shots --seed",
    "datasets.check": "NAME --root --decode",
    "clip.models.__main__": "WORD",
    "engine.features.__main__": "info clear --dir",
}

# Another default would make another run of an old command, or leave a finished one unrecognised.
DEFAULTS = """
VERSION: 1
OUTPUT_DIR: ./output
RESUME: ''
SEED: -1
USE_CUDA: true
VERBOSE: true
RUN: {CFG: '', PLUGINS: [], EVAL_ONLY: false, MODEL_DIR: '', LOAD_EPOCH: -1, SEARCHED: [], DETERMINISTIC: false}
INPUT: {SIZE: [224, 224], INTERPOLATION: bilinear, RESIZE: crop, TRANSFORMS: [], NO_TRANSFORM: false, VIEWS: 0,
  REDUCED_DECODING: false, ON_BAD_IMAGE: error, PIXEL_MEAN: [0.485, 0.456, 0.406], PIXEL_STD: [0.229, 0.224, 0.225],
  CROP_PADDING: 4,
  RRCROP_SCALE: [0.08, 1.0], CUTOUT_N: 1, CUTOUT_LEN: 16, GN_MEAN: 0.0, GN_STD: 0.15, RANDAUGMENT_N: 2,
  RANDAUGMENT_M: 10, COLORJITTER_B: 0.4, COLORJITTER_C: 0.4, COLORJITTER_S: 0.4, COLORJITTER_H: 0.1, RGS_P: 0.2,
  GB_P: 0.5, GB_K: 21}
DATASET: {ROOT: '', NAME: '', NUM_SHOTS: -1, SELECTION: few_shot_val, FEWSHOT_FILE: '', SUBSAMPLE_CLASSES: all,
  CLASSNAMES: '',
  SOURCE_DOMAINS: [], TARGET_DOMAINS: [], NUM_LABELED: -1, VAL_PERCENT: 0.1, ALL_AS_UNLABELED: false, STL10_FOLD: -1,
  CIFAR_C_TYPE: '', CIFAR_C_LEVEL: 1}
DATALOADER: {NUM_WORKERS: 4, CACHE_GB: 2.0, K_TRANSFORMS: 1, RETURN_IMG0: false,
  TRAIN_X: {SAMPLER: RandomSampler, BATCH_SIZE: 32, N_DOMAIN: 0, N_INS: 16},
  TRAIN_U: {SAME_AS_X: true, SAMPLER: RandomSampler, BATCH_SIZE: 32, N_DOMAIN: 0, N_INS: 16},
  TEST: {SAMPLER: SequentialSampler, BATCH_SIZE: 32}}
FEATURES: {DIR: ~/.cache/clip/features, MAX_GB: 20.0, PREPARED: true}
MODEL: {INIT_WEIGHTS: '', CHANNELS_LAST: true, COMPILE: false,
  BACKBONE: {NAME: '', HEADS: [], ACTIVATION: '', PRETRAINED: true},
  HEAD: {NAME: '', HIDDEN_LAYERS: [], ACTIVATION: relu, BN: true, DROPOUT: 0.0}}
OPTIM: {NAME: adam, LR: 0.0003, WEIGHT_DECAY: 0.0005, MOMENTUM: 0.9, SGD_DAMPNING: 0, SGD_NESTEROV: false,
  RMSPROP_ALPHA: 0.99, ADAM_BETA1: 0.9, ADAM_BETA2: 0.999, ADAM_EPS: 1.0e-8, STAGED_LR: false, NEW_LAYERS: [],
  BASE_LR_MULT: 0.1,
  LR_SCHEDULER: single_step, STEPSIZE: [-1], GAMMA: 0.1, MAX_EPOCH: 10, WARMUP_EPOCH: -1, WARMUP_TYPE: linear,
  WARMUP_CONS_LR: 1.0e-5, WARMUP_MIN_LR: 1.0e-5, WARMUP_RECOUNT: true}
TRAIN: {CHECKPOINT_FREQ: 0, RESUME_EVERY_S: 60.0, PRINT_FREQ: 10, LOGGERS: [tensorboard], COUNT_ITER: train_x}
TEST: {EVALUATOR: Classification, PER_CLASS_RESULT: false, COMPUTE_CMAT: false, SAVE_PREDICTIONS: true,
  SAVE_LOGITS: false, TEMPERATURE: true, NO_TEST: false, SPLIT: test,
  ON_BAD_IMAGE: error, FINAL_MODEL: last_step, ALLOW_ORACLE: false}
TRAINER: {NAME: '',
  COOP: {N_CTX: 16, CSC: false, CTX_INIT: '', PREC: fp16, CLASS_TOKEN_POSITION: end, CHUNK_ROWS: -1,
    SHARD_CLASSES: false},
  COCOOP: {N_CTX: 16, CTX_INIT: '', PREC: fp16, CHUNK_ROWS: -1},
  KGCOOP: {N_CTX: 16, CSC: false, CTX_INIT: '', PREC: fp16, CLASS_TOKEN_POSITION: end, CHUNK_ROWS: -1,
    SHARD_CLASSES: false, W: 8.0},
  PROGRAD: {N_CTX: 16, CSC: false, CTX_INIT: '', PREC: fp16, CLASS_TOKEN_POSITION: end, CHUNK_ROWS: -1,
    SHARD_CLASSES: false, LAMBDA: 1.0, T: 1.0, TEMPLATE_INIT: false},
  TCP: {N_CTX: 4, CTX_INIT: '', W: 8.0, BLOCK: 0, PREC: fp16, CHUNK_ROWS: -1, SHARD_CLASSES: false},
  LINEAR_PROBE: {PREC: fp16}, ZSCLIP: {PREC: fp16, TEMPLATES: select},
  TASKRES: {PREC: fp16, ALPHA: 0.5}, CLIP_ADAPTER: {PREC: fp16, RATIO: 0.2},
  CLAP: {PREC: fp16, CONSTRAINT: l2}, CROSS_MODAL: {PREC: fp16},
  TIP_ADAPTER: {PREC: fp16, AUGMENT_EPOCH: 10, INIT_ALPHA: 1.17, INIT_BETA: 1.0, SEARCH_SCALE: [7.0, 3.0],
    SEARCH_STEP: [200, 20]},
  GDA: {PREC: fp16, AUGMENT_EPOCH: 10, NEW_CLASSES: false},
  LP_PLUS_PLUS: {PREC: fp16, BIAS: true, LR_ALPHA: 0.25, SUM_GRADIENTS: true},
  MAPLE: {N_CTX: 2, CTX_INIT: a photo of a, PREC: fp16, PROMPT_DEPTH: 9, CHUNK_ROWS: -1, SHARD_CLASSES: false,
    CHECKPOINT_ACTIVATIONS: false},
  IVLP: {N_CTX_VISION: 2, N_CTX_TEXT: 2, CTX_INIT: a photo of a, PREC: fp16, PROMPT_DEPTH_VISION: 9,
    PROMPT_DEPTH_TEXT: 9, CHUNK_ROWS: -1, SHARD_CLASSES: false, CHECKPOINT_ACTIVATIONS: false},
  VPT: {N_CTX_VISION: 8, CTX_INIT: a photo of a, PREC: fp16, PROMPT_DEPTH_VISION: 12, CHECKPOINT_ACTIVATIONS: false},
  DEEP_LANGUAGE: {N_CTX_TEXT: 4, CTX_INIT: a photo of a, PREC: fp16, PROMPT_DEPTH_TEXT: 12, CHUNK_ROWS: -1,
    SHARD_CLASSES: false},
  PROMPTSRC: {N_CTX_VISION: 4, N_CTX_TEXT: 4, CTX_INIT: a photo of a, PREC: fp16, PROMPT_DEPTH_VISION: 9,
    PROMPT_DEPTH_TEXT: 9, TEXT_LOSS_WEIGHT: 25.0, IMAGE_LOSS_WEIGHT: 10.0, GPA_MEAN: 15.0, GPA_STD: 1.0,
    CHUNK_ROWS: -1, SHARD_CLASSES: false, CHECKPOINT_ACTIVATIONS: false},
  CLIPLORA: {ENCODER: both, PREC: fp16, CHUNK_ROWS: 16384, CHECKPOINT_ACTIVATIONS: false, R: 2, ALPHA: 1.0,
    DROPOUT_RATE: 0.25},
  LAYER_NORM: {ENCODER: both, PREC: fp16, CHUNK_ROWS: -1, CHECKPOINT_ACTIVATIONS: false},
  TWO_STAGE: {ENCODER: both, PREC: fp16, CHUNK_ROWS: -1, CHECKPOINT_ACTIVATIONS: false, FIRST_STAGE: 0.6},
  TPT: {N_CTX: 4, CTX_INIT: a photo of a, CLASS_TOKEN_POSITION: end, PREC: fp16, N_VIEWS: 64, CONFIDENT_SHARE: 0.1,
    LR: 0.005, N_STEPS: 1, CHUNK_ROWS: -1}}
"""

USAGES = {
    "coop/main.sh": "DATASET CFG CTP NCTX SHOTS CSC [KEY VALUE ...]",
    "coop/eval.sh": "DATASET CFG [KEY VALUE ...]",
    "coop/zeroshot.sh": "DATASET CFG [KEY VALUE ...]",
    "cocoop/base2new_train.sh": "DATASET SEED [CFG] [KEY VALUE ...]",
    "cocoop/base2new_test.sh": "DATASET SEED [CFG] [KEY VALUE ...]",
    "cocoop/xd_train.sh": "SEED [CFG] [KEY VALUE ...]",
    "cocoop/xd_test.sh": "DATASET SEED [CFG] [KEY VALUE ...]",
    "few_shot.sh": "DATASET CFG SHOTS [KEY VALUE ...]",
    "linear_probe/main.sh": "DATASET CFG SHOTS [KEY VALUE ...]",
    "linear_probe/eval.sh": "DATASET CFG [KEY VALUE ...]",
    "reproduce.sh": "TABLE [TABLE ...]",
    "test.sh": "[quick | robust] [PYTEST ARGUMENTS]",
}
ENVIRONMENT = {
    "_common.sh": "DATA SEEDS OUTPUT PLUGIN PLUGIN_CONFIG DRY_RUN PYTHON",
    "coop/main.sh": "TRAINER TRAINER_NODE",
    "coop/eval.sh": "TRAINER TRAINER_NODE SOURCE SHOTS NCTX CSC CTP",
    "coop/zeroshot.sh": "TRAINER SUBSAMPLE",
    "cocoop/base2new_train.sh": "TRAINER SHOTS",
    "cocoop/base2new_test.sh": "TRAINER SHOTS SUBSAMPLE",
    "cocoop/xd_train.sh": "TRAINER SHOTS SOURCE",
    "cocoop/xd_test.sh": "TRAINER SHOTS SOURCE",
    "few_shot.sh": "TRAINER",
    "linear_probe/eval.sh": "SOURCE SHOTS",
    "reproduce.sh": "JOBS OMP_NUM_THREADS",
    "test.sh": "COOP_DATA PYTHON",
}

FILES = """log.txt config.yaml results.json predictions.csv tensorboard prompt_learner prompt_learner/checkpoint
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
RESULTS = """accuracy error_rate macro_f1 total correct
    top5_accuracy balanced_accuracy nll brier ece temperature trainer dataset source seed shots cfg backbone n_ctx csc
    class_token_position subsample epoch config_digest selection setting digests"""
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
    "train": "train main run",
    "trainers.coop": "PromptLearner CustomCLIP TextEncoder CoOp load_clip_to_cpu",
    "trainers.cocoop": "PromptLearner CustomCLIP CoCoOp",
    "trainers.kgcoop": "KgCoOp",
    "trainers.prograd": "ProGrad",
    "trainers.tcp": "PromptLearner TCP",
    "trainers.maple": "MultiModalPromptLearner MaPLe",
    "trainers.ivlp": "IVLP",
    "trainers.vpt": "VPT",
    "trainers.deep_language": "DeepLanguage",
    "trainers.promptsrc": "PromptSRC",
    "trainers.low_rank": "CLIPLoRA",
    "trainers.layer_norm": "LayerNormTuning",
    "trainers.two_stage": "TwoStage",
    "trainers.tpt": "PromptLearner CustomCLIP TPT",
    "trainers.zsclip": "ZeroshotCLIP ZeroshotCLIP2",
    "trainers.linear_probe": "LinearProbe",
}
TRAINERS = """CoOp CoCoOp KgCoOp ProGrad ZeroshotCLIP ZeroshotCLIP2 LinearProbe TaskRes CLIPAdapter TipAdapter
    TipAdapterF ZSLP CLAP CrossModal GDA LPPlusPlus TCP MaPLe IVLP VPT DeepLanguage PromptSRC CLIPLoRA
    LayerNormTuning TwoStage TPT"""
DATASETS = """Caltech101 OxfordPets StanfordCars OxfordFlowers Food101 FGVCAircraft SUN397 DescribableTextures EuroSAT
    UCF101 ImageNet ImageNetV2 ImageNetSketch ImageNetA ImageNetR Folder Shapes"""


@pytest.mark.parametrize("module", PROGRAMS)
def test_flags_and_arguments(module, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(module).main(["--help"])
    there = set(re.findall(r"(?<![\w-])-{0,2}[A-Za-z][\w-]*", capsys.readouterr().out))
    assert sorted(set(PROGRAMS[module].split()) - there) == []


def test_config_keys_and_their_defaults(monkeypatch):
    monkeypatch.delenv("COOP_FEATURES")
    frozen = flatten(CN(yaml.safe_load(DEFAULTS)))
    assert len(frozen) == 246
    there = flatten(full_default(with_plugins=False))
    there = {key: list(value) if isinstance(value, tuple) else value for key, value in there.items()}
    assert {key: there.get(key, "missing") for key in frozen} == frozen


@pytest.mark.parametrize("script", USAGES)
def test_script_arguments(script):
    assert f"#   bash scripts/{script} {USAGES[script]}\n" in header(script)


@pytest.mark.parametrize("script", ENVIRONMENT)
def test_script_environment(script):
    environment = set(re.findall(r"\w+", header(script).split("\n# Environment")[1]))
    assert sorted(set(ENVIRONMENT[script].split()) - environment) == []


def header(script):
    """The comment that a script begins with."""
    return re.match(r"(?:#.*\n|\n)+", (ROOT / "scripts" / script).read_text(encoding="utf-8"))[0]


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


def test_no_method_stands_deeper_than_the_fourth_class():
    """TrainerX, PromptTrainer, one that several methods share, the method."""
    depths = {name: len(TRAINER_REGISTRY.get(name).__mro__) - 1 for name in TRAINER_REGISTRY.registered_names()}
    assert {name for name, depth in depths.items() if depth > 4} == set()


def test_trainers_and_data_sets():
    assert set(TRAINERS.split()) <= set(TRAINER_REGISTRY.registered_names())
    assert set(DATASETS.split()) <= set(DATASET_REGISTRY.registered_names())
