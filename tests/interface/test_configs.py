"""Every config file loads and names things that exist; each of the papers' is what its name says."""

import re
from pathlib import Path

import pytest

import train
from clip import available_models
from engine import DATASET_REGISTRY, TRAINER_REGISTRY
from engine.config.load import read_yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINER_FILES = sorted((CONFIGS / "trainers").glob("*/*.yaml"))
DATASET_FILES = sorted((CONFIGS / "datasets").glob("*.yaml"))
FAMILIES = {"rn50": "RN50", "rn101": "RN101", "vit_b32": "ViT-B/32", "vit_b16": "ViT-B/16"}
# The papers' files. Another method, or another file of theirs, may say what it likes.
COOP = [f"{family}{epochs}{ctx}" for family in FAMILIES for epochs in ("", "_ep50", "_ep100") for ctx in ("", "_ctxv1")]
COOP += ["rn50_val", "vit_b16_ep50_ctx60", "tiny", "tiny_ctxv1", "tiny_ctx60"]
COCOOP = [f"vit_b16_{name}" for name in ("c4_ep10_batch1", "c8_ep10_batch1", "c16_ep10_batch1", "c4_ep10_batch1_ctxv1")]
COCOOP += ["vit_b16_c4_ep10_batch32_ctxv1", "tiny", "tiny_c4"]
LINEAR_PROBE = [*FAMILIES, "tiny"]
COOP_FILES, COCOOP_FILES, PROBE_FILES = (
    [CONFIGS / "trainers" / trainer / f"{name}.yaml" for name in names]
    for trainer, names in (("CoOp", COOP), ("CoCoOp", COCOOP), ("LinearProbe", LINEAR_PROBE))
)

ORIGINAL_STYLE = """
INPUT:
  SIZE: (224, 224)
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]

OPTIM:
  WARMUP_CONS_LR: 1e-5

MODEL:
  BACKBONE:
    NAME: "RN50"
"""


def file_name(path):
    return f"{path.parent.name}/{path.stem}"


def setup(trainer_file, dataset_file=CONFIGS / "datasets" / "caltech101.yaml", *words, trainer=None):
    trainer = trainer or trainer_file.parent.name
    argv = ["--trainer", trainer, "--config-file", str(trainer_file), "--dataset-config-file", str(dataset_file)]
    return train.setup_cfg(train.parse_args([*argv, *words]))


@pytest.mark.parametrize("path", [*TRAINER_FILES, *DATASET_FILES], ids=file_name)
def test_every_config_loads_and_names_things_that_exist(path):
    words = ["--eval-only"] if path.parent.name == "TPT" else []  # it trains nothing
    files = (path, CONFIGS / "datasets" / "caltech101.yaml") if path in TRAINER_FILES else (COOP_FILES[0], path)
    cfg = setup(*files, *words)
    assert cfg.MODEL.BACKBONE.NAME in available_models()
    assert cfg.TRAINER.NAME in TRAINER_REGISTRY
    assert cfg.DATASET.NAME in DATASET_REGISTRY
    assert path in DATASET_FILES or path.stem == cfg.RUN.CFG


def test_every_data_set_has_a_config():
    named = {read_yaml(path)["DATASET.NAME"] for path in DATASET_FILES}
    names = DATASET_REGISTRY.registered_names()
    ours = {name for name in names if DATASET_REGISTRY.get(name).__module__.startswith("datasets.")}
    assert named == ours


def test_coop_has_the_full_grid():
    assert set(COOP_FILES) <= set(TRAINER_FILES)
    complete = {path.stem for path in COOP_FILES if "_BASE_" not in path.read_text(encoding="utf-8")}
    assert complete == {*FAMILIES, "tiny"}


@pytest.mark.parametrize("path", COOP_FILES, ids=file_name)
def test_a_config_of_coop_is_what_its_name_says(path):
    cfg = setup(path)
    assert_trains_as_the_papers(cfg)
    assert cfg.TRAIN.PRINT_FREQ == 5
    family, epochs, ctx, val = re.fullmatch(r"(.+?)(?:_ep(\d+))?(_ctxv1|_ctx60)?(_val)?", path.stem).groups()
    assert cfg.TRAINER.COOP.CTX_INIT == ("a photo of a" if ctx == "_ctxv1" else "")
    assert cfg.TRAINER.COOP.N_CTX == {None: 16, "_ctxv1": 4, "_ctx60": 60}[ctx]
    if family == "tiny":
        assert_is_tiny(cfg)
        return
    assert cfg.MODEL.BACKBONE.NAME == FAMILIES[family]
    assert int(epochs or 200) == cfg.OPTIM.MAX_EPOCH
    assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TEST.BATCH_SIZE) == ((200, 200) if val else (32, 100))


def assert_trains_as_the_papers(cfg):
    assert cfg.INPUT.PIXEL_MEAN == [0.48145466, 0.4578275, 0.40821073]
    assert cfg.INPUT.PIXEL_STD == [0.26862954, 0.26130258, 0.27577711]
    assert cfg.INPUT.INTERPOLATION == "bicubic"
    assert cfg.INPUT.SIZE == ((48, 48) if cfg.RUN.CFG.startswith("tiny") else (224, 224))
    assert (cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.LR_SCHEDULER) == ("sgd", 0.002, "cosine")
    assert (cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.WARMUP_TYPE, cfg.OPTIM.WARMUP_CONS_LR) == (1, "constant", 1e-5)
    assert list(cfg.INPUT.TRANSFORMS) == ["random_resized_crop", "random_flip", "normalize"]


def assert_is_tiny(cfg):
    assert cfg.MODEL.BACKBONE.NAME == "ViT-T/8-shapes"
    assert cfg.TRAINER.COOP.PREC == "fp32" or cfg.TRAINER.COCOOP.PREC == "fp32"


@pytest.mark.parametrize("path", COCOOP_FILES, ids=file_name)
def test_a_config_of_cocoop_is_what_its_name_says(path):
    cfg = setup(path)
    assert_trains_as_the_papers(cfg)
    assert cfg.TRAIN.PRINT_FREQ == 20
    if path.stem.startswith("tiny"):
        assert_is_tiny(cfg)
        assert cfg.TRAINER.COCOOP.CTX_INIT == ("" if path.stem == "tiny_c4" else "a photo of a")
        return
    n_ctx, epochs, batch, ctx = re.fullmatch(r"vit_b16_c(\d+)_ep(\d+)_batch(\d+)(_ctxv1)?", path.stem).groups()
    assert cfg.MODEL.BACKBONE.NAME == "ViT-B/16"
    assert cfg.TRAINER.COCOOP.N_CTX == int(n_ctx)
    assert cfg.TRAINER.COCOOP.CTX_INIT == ("a photo of a" if ctx else "")
    assert int(epochs) == cfg.OPTIM.MAX_EPOCH
    assert cfg.DATALOADER.TRAIN_X.BATCH_SIZE == int(batch)
    assert cfg.DATALOADER.TEST.BATCH_SIZE == 100


@pytest.mark.parametrize("path", [*COOP_FILES, *COCOOP_FILES, *PROBE_FILES], ids=file_name)
def test_a_file_says_only_what_differs_or_has_a_header_with_the_papers_accuracies(path):
    text = path.read_text(encoding="utf-8")
    accuracies = re.findall(r"\b\d\d\.\d\d\b", text.split("\n\n")[0])
    if "_BASE_" in text:
        assert len(text.splitlines()) <= 12 and not accuracies
        return
    assert all(word in text.split("DATALOADER:")[0] for word in ("# ", "Run:", "bash scripts/", "Cost:"))
    assert bool(accuracies) == (path.stem != "tiny")
    paper = (CONFIGS.parent / "reports" / "tables" / "paper.yaml").read_text(encoding="utf-8")
    assert [accuracy for accuracy in accuracies if accuracy not in paper] == []


def test_a_file_of_the_original_loads_unchanged(tmp_path):
    """In it, tuples and 1e-5 are strings to YAML."""
    path = tmp_path / "rn50_original.yaml"
    path.write_text(ORIGINAL_STYLE)
    cfg = setup(path, trainer="CoOp")
    assert cfg.INPUT.SIZE == (224, 224)
    assert isinstance(cfg.OPTIM.WARMUP_CONS_LR, float)
    assert cfg.OPTIM.WARMUP_CONS_LR == 0.00001
    assert list(cfg.INPUT.TRANSFORMS) == ["random_resized_crop", "random_flip", "normalize"]


@pytest.mark.parametrize(
    ("trainer", "group", "options"),
    [
        ("MaPLe", "MAPLE", {"N_CTX": 2, "PROMPT_DEPTH": 3}),
        ("IVLP", "IVLP", {"N_CTX_VISION": 0, "N_CTX_TEXT": 4, "PROMPT_DEPTH_VISION": 0, "PROMPT_DEPTH_TEXT": 12}),
        ("VPT", "VPT", {"N_CTX_VISION": 8, "PROMPT_DEPTH_VISION": 12}),
        ("PromptSRC", "PROMPTSRC", {"TEXT_LOSS_WEIGHT": 25, "IMAGE_LOSS_WEIGHT": 10, "GPA_MEAN": 45, "GPA_STD": 5}),
    ],
)
def test_the_files_of_maples_and_promptsrcs_authors_load_unchanged(tmp_path, trainer, group, options):
    """With the options that their files have, written as there."""
    lines = [
        f"    {key}: {value}" for key, value in {**options, "CTX_INIT": '"a photo of a"', "PREC": '"fp16"'}.items()
    ]
    path = tmp_path / "theirs.yaml"
    path.write_text(ORIGINAL_STYLE.replace("RN50", "ViT-B/16") + "\n".join(["", "TRAINER:", f"  {group}:", *lines]))
    node = setup(path, trainer=trainer).TRAINER[group]
    assert {key: node[key] for key in options} == options
    assert (node.CTX_INIT, node.PREC) == ("a photo of a", "fp16")
