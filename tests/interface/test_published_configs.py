"""The authors' files and commands of later methods load as they are: their settings, in their form."""

from pathlib import Path

import pytest

import train
from engine.config.identity import identity
from engine.config.load import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COMMON = """
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: {batch}
  TEST:
    BATCH_SIZE: {test_batch}
  NUM_WORKERS: 8

INPUT:
  SIZE: (224, 224)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]

OPTIM:
  NAME: "{optim}"
  LR: {lr}
  MAX_EPOCH: {epochs}
  LR_SCHEDULER: "cosine"
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
  WARMUP_CONS_LR: 1e-5

TRAIN:
  PRINT_FREQ: {print_freq}

MODEL:
  BACKBONE:
    NAME: "ViT-B/16"

TRAINER:
  {group}:
"""
USUAL = {"batch": 4, "test_batch": 100, "optim": "sgd", "lr": 0.0035, "epochs": 5, "print_freq": 20}
BOTH_TOWERS = {"CTX_INIT": '"a photo of a"', "PREC": '"fp16"'}
OF_SRC = {"N_CTX_VISION": 4, "N_CTX_TEXT": 4, "PROMPT_DEPTH_VISION": 9, "PROMPT_DEPTH_TEXT": 9, **BOTH_TOWERS}
WEIGHTS = {"TEXT_LOSS_WEIGHT": 25, "IMAGE_LOSS_WEIGHT": 10}
AS_COOP = ("N_CTX", "4", "CSC", "False", "W", "8.0", "CLASS_TOKEN_POSITION", "end")  # what the authors' scripts add

# Trainer, our file of the same setting: the common settings, the group, its keys, the pairs of the authors' script.
PUBLISHED = {
    ("KgCoOp", "vit_b16_ep100_ctxv1"): (
        {**USUAL, "batch": 128, "lr": 0.002, "epochs": 100, "print_freq": 5},
        "COOP",
        {"CTX_INIT": True},
        AS_COOP,
    ),
    ("TCP", "vit_b16"): (
        {"batch": 32, "test_batch": 500, "optim": "adam", "lr": 0.002, "epochs": 50, "print_freq": 5},
        "COOP",
        {"CTX_INIT": False},
        AS_COOP,
    ),
    ("MaPLe", "vit_b16_c2_ep5_batch4_2ctx"): (
        USUAL,
        "MAPLE",
        {"N_CTX": 2, "PROMPT_DEPTH": 9, **BOTH_TOWERS},
        (),
    ),
    ("MaPLe", "vit_b16_c2_ep5_batch4_2ctx_cross_datasets"): (
        {**USUAL, "lr": 0.0026, "epochs": 2},
        "MAPLE",
        {"N_CTX": 2, "PROMPT_DEPTH": 3, **BOTH_TOWERS},
        (),
    ),
    ("VPT", "vit_b16_c2_ep5_batch4_4"): (
        {**USUAL, "lr": 0.0025},
        "VPT",
        {"N_CTX_VISION": 8, "PROMPT_DEPTH_VISION": 12, **BOTH_TOWERS},
        (),
    ),
    ("IVLP", "vit_b16_c2_ep5_batch4_2+2ctx"): (
        USUAL,
        "IVLP",
        {"N_CTX_VISION": 2, "N_CTX_TEXT": 2, "PROMPT_DEPTH_VISION": 12, "PROMPT_DEPTH_TEXT": 12, **BOTH_TOWERS},
        (),
    ),
    ("PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx"): (
        {**USUAL, "lr": 0.0025, "epochs": 20},
        "PROMPTSRC",
        {**OF_SRC, **WEIGHTS, "GPA_MEAN": 15, "GPA_STD": 1},
        (),
    ),
    ("PromptSRC", "vit_b16_c2_ep50_batch4_4+4ctx_few_shot"): (
        {**USUAL, "lr": 0.0025, "epochs": 50},
        "PROMPTSRC",
        {**OF_SRC, **WEIGHTS, "GPA_MEAN": 30, "GPA_STD": 30},
        (),
    ),
}


def setup(trainer, path, *pairs):
    words = [
        f"--trainer={trainer}",
        f"--config-file={path}",
        f"--dataset-config-file={CONFIGS}/datasets/caltech101.yaml",
    ]
    return train.setup_cfg(train.parse_args([*words, *pairs]))


def text_of(common, group, keys):
    return COMMON.format(**common, group=group) + "".join(f"    {key}: {value}\n" for key, value in keys.items())


@pytest.fixture
def published(tmp_path):
    """Returns the config of a trainer from the text of a file and KEY VALUE pairs."""

    def build(trainer, text, *pairs):
        (tmp_path / "theirs.yaml").write_text(text)
        return setup(trainer, tmp_path / "theirs.yaml", *pairs)

    return build


@pytest.mark.parametrize(("trainer", "name"), PUBLISHED, ids="/".join)
def test_the_authors_file_and_command_are_our_file_of_that_setting(published, trainer, name):
    common, group, keys, options = PUBLISHED[trainer, name]
    pairs = [f"TRAINER.{group}.{word}" if i % 2 == 0 else word for i, word in enumerate(options)]
    theirs = identity(published(trainer, text_of(common, group, keys), *pairs))
    ours = identity(setup(trainer, CONFIGS / "trainers" / trainer / f"{name}.yaml"))
    differs = {key for key in theirs | ours if theirs.get(key) != ours.get(key)}
    # TCP's authors have users edit Dassl for its eps, and test with larger batches.
    assert differs == ({"OPTIM.ADAM_EPS", "DATALOADER.TEST.BATCH_SIZE"} if trainer == "TCP" else set())


@pytest.mark.parametrize(
    ("trainer", "keys", "pairs", "expected"),
    [
        ("KgCoOp", {"CTX_INIT": True}, (), {"CTX_INIT": "a photo of a", "W": 8.0}),
        ("KgCoOp", {"CTX_INIT": "True", "W": 2}, ("TRAINER.COOP.CTX_INIT", "False"), {"CTX_INIT": "", "W": 2.0}),
        ("KgCoOp", {"CTX_INIT": '"a picture"', "CSC": True}, (), {"CTX_INIT": "a picture", "CSC": True}),
        ("TCP", {"CTX_INIT": True, "PREC": "fp32"}, (), {"CTX_INIT": "a photo of a", "PREC": "fp32"}),
        ("TCP", {"CTX_INIT": False}, ("TRAINER.TCP.CTX_INIT", "False"), {"CTX_INIT": ""}),
        ("TCP", {"W": 4}, ("TRAINER.TCP.W", "5"), {"W": 5.0}),  # what comes later counts
        ("TCP", {"W": 4}, ("TRAINER.COOP.W", "5"), {"W": 5.0}),
    ],
)
def test_options_under_coop_are_the_methods_own(published, trainer, keys, pairs, expected):
    cfg = published(trainer, text_of(USUAL, "COOP", keys), *pairs)
    own = cfg.TRAINER[trainer.upper()]
    assert {key: own[key] for key in expected} == expected
    assert (cfg.TRAINER.COOP.CTX_INIT, cfg.TRAINER.COOP.CSC) == ("", False)  # CoOp's stay


@pytest.mark.parametrize("is_first", [True, False])
def test_in_one_file_the_methods_own_group_counts(published, is_first):
    groups = ["  COOP: {W: 4, N_CTX: 8, CTX_INIT: a picture}\n", "  KGCOOP: {W: 6, CTX_INIT: a}\n"]
    text = text_of(USUAL, "PROGRAD", {"T": 1.0}) + "".join(reversed(groups) if is_first else groups)
    own = published("KgCoOp", text).TRAINER.KGCOOP
    assert (own.W, own.N_CTX, own.CTX_INIT) == (6, 8, "a")


def test_for_other_methods_the_group_is_coops(published):
    with pytest.raises(ConfigError, match="TRAINER.COOP.CTX_INIT is True; it must be of type str"):
        published("CoOp", text_of(USUAL, "COOP", {"CTX_INIT": True}))
    assert published("ProGrad", text_of(USUAL, "COOP", {"N_CTX": 8})).TRAINER.PROGRAD.N_CTX == 16


@pytest.mark.parametrize(
    ("trainer", "keys", "pairs", "message"),
    [
        ("TCP", {"CSC": True}, (), "theirs.yaml: TRAINER.COOP.CSC is True; here it must be False. Leave it out."),
        (
            "TCP",
            {"CSC": False},
            ("TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"),
            "command line: TRAINER.COOP.CLASS_TOKEN_POSITION is 'middle'; here it must be end. Leave it out.",
        ),
        ("KgCoOp", {"ALPHA": 1.0}, (), "theirs.yaml: the key TRAINER.COOP.ALPHA is unknown."),
        ("KgCoOp", {"W": "much"}, (), "theirs.yaml: TRAINER.KGCOOP.W is 'much'; it must be of type float"),
    ],
)
def test_what_the_method_does_not_have_is_refused(published, trainer, keys, pairs, message):
    with pytest.raises(ConfigError) as error:
        published(trainer, text_of(USUAL, "COOP", keys), *pairs)
    assert message in str(error.value)
