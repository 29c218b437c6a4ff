"""Where the runs of each result lie below the output folder, and the command lines that make them.

These are the conventions of scripts/, written once for every table; a test compares both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHOTS = 16  # of every table but the few-shot ones
DATASETS = {  # config's name -> name in the tables; the papers' 11, in their order
    "imagenet": "ImageNet",
    "caltech101": "Caltech101",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "oxford_flowers": "OxfordFlowers",
    "food101": "Food101",
    "fgvc_aircraft": "FGVCAircraft",
    "sun397": "SUN397",
    "dtd": "DTD",
    "eurosat": "EuroSAT",
    "ucf101": "UCF101",
}
N_CLASSES = dict(zip(DATASETS, (1000, 100, 37, 196, 102, 101, 100, 397, 47, 10, 101), strict=True))
SHIFTED = {
    "imagenetv2": "ImageNetV2",
    "imagenet_sketch": "ImageNetSketch",
    "imagenet_a": "ImageNetA",
    "imagenet_r": "ImageNetR",
}
SHIFTED_SHAPES = {
    "shapes_v2": "ShapesV2",
    "shapes_sketch": "ShapesSketch",
    "shapes_a": "ShapesA",
    "shapes_r": "ShapesR",
}
# Config's name -> DATASET.NAME.
NAMES = {**DATASETS, "dtd": "DescribableTextures", **SHIFTED, "shapes": "Shapes", **SHIFTED_SHAPES}
PAPERS_TRAINERS = ("CoOp", "CoCoOp", "LinearProbe", "ZeroshotCLIP", "ZeroshotCLIP2")  # of CoOp's and CoCoOp's tables
FEATURE_METHODS = {  # trainer -> name in the tables
    "TaskRes": "TaskRes",
    "CLIPAdapter": "CLIP-Adapter",
    "TipAdapter": "Tip-Adapter",
    "TipAdapterF": "Tip-Adapter-F",
    "ZSLP": "ZS-LP",
    "CLAP": "CLAP",
    "CrossModal": "cross-modal probe",
    "LPPlusPlus": "LP++",
    "GDA": "GDA",
}
INSIDE_TOWERS = {  # trainer -> name in the tables, and the config with ViT-B/16 for base to new
    "VPT": ("VPT", "vit_b16_c2_ep5_batch4_4"),
    "DeepLanguage": ("deep language", "vit_b16_c2_ep5_batch4_4ctx"),
    "IVLP": ("IVLP", "vit_b16_c2_ep5_batch4_2+2ctx"),
    "MaPLe": ("MaPLe", "vit_b16_c2_ep5_batch4_2ctx"),
    "PromptSRC": ("PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx"),
    "TCP": ("TCP", "vit_b16"),
    "CLIPLoRA": ("CLIP-LoRA", "vit_b16"),
    "LayerNormTuning": ("LayerNorm tuning", "vit_b16"),
    "TwoStage": ("2SFS", "vit_b16"),
}
LABELS = {  # trainer -> name in the tables, where it is another
    "LinearProbe": "linear probe",
    **FEATURE_METHODS,
    **{trainer: label for trainer, (label, _) in INSIDE_TOWERS.items()},
}
TRAINERS = (*PAPERS_TRAINERS, "KgCoOp", "ProGrad", *FEATURE_METHODS, *INSIDE_TOWERS)  # of all tables
FEW_SHOT_CONFIGS = {  # trainer -> config with ViT-B/16 for few shots of all classes, where it is not vit_b16
    "CoCoOp": "vit_b16_c4_ep10_batch1_ctxv1",
    "MaPLe": "vit_b16_c2_ep50_batch4_2ctx_few_shot",
    "PromptSRC": "vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
}
STEPS = {"CLIPLoRA": 500, "LayerNormTuning": 300, "TwoStage": 300}  # trainer -> its authors' steps for each shot
LATE_AVERAGE = ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat")  # of PromptSRC's few shots
BACKBONES = {"rn50": "RN50", "rn101": "RN101", "vit_b32": "ViT-B/32", "vit_b16": "ViT-B/16"}
EPOCHS = {1: "_ep50", 2: "_ep100", 4: "_ep100", 8: "", 16: ""}  # shots -> ending of CoOp's config; none: 200 epochs
FEW_SHOTS = tuple(EPOCHS)


@dataclass(frozen=True)
class Experiment:
    """The runs of one result.

    Args:
        folder: Below the output folder; holds a folder seedN for each seed, or is the only run itself.
        commands: Bash command lines, training before testing; SEED stands for one seed where a script takes one.
        seeded: Whether something is drawn, so that there is a run for each seed.
        tests_only: Whether the runs only test a model that others trained, or none.
        expected: What belongs into their results.json; see `expected_results`.
    """

    folder: str
    commands: tuple[str, ...]
    seeded: bool = True
    tests_only: bool = False
    expected: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def command_lines(self, seeds: Sequence[str]) -> list[str]:
        """Returns the command lines for these seeds, training before testing."""
        lines = [command.replace("SEED", seed) for command in self.commands for seed in seeds]
        return list(dict.fromkeys(lines))


def expected_results(
    dataset: str, trainer: str, cfg: str, *, source: str = "", subsample: str = "all", **more: Any
) -> dict[str, Any]:
    """Returns the entries of results.json that say which run it is: key -> value, None where any will do.

    Args:
        dataset: Config of the data set tested on.
        trainer: TRAINER.NAME.
        cfg: The trainer's config.
        source: Config of the data set trained on; "": nothing is trained.
        subsample: The classes tested on: all, base or new.
        more: Other entries; `shots`, of the training, is one.

    Returns:
        "settings", too: the config keys whose values are not the config's; see `own_settings`.
    """
    names = {"dataset": NAMES.get(dataset), "source": NAMES.get(source)}
    settings = own_settings(source, trainer, cfg, subsample=subsample, shots=more.get("shots", SHOTS))
    more |= {"settings": settings} if settings else {}
    return {**names, "trainer": trainer, "cfg": cfg, "subsample": subsample, "split": "test", **more}


def own_settings(dataset: str, trainer: str, cfg: str, *, subsample: str, shots: int) -> dict[str, int]:
    """Returns what a method's authors set for a training besides its config: config key -> value.

    Where they count steps of 32 images, not epochs, these are the epochs that come nearest to them.
    """
    if trainer == "PromptSRC" and cfg == FEW_SHOT_CONFIGS[trainer] and dataset in LATE_AVERAGE:
        return {"TRAINER.PROMPTSRC.GPA_MEAN": 45, "TRAINER.PROMPTSRC.GPA_STD": 5}
    if trainer not in STEPS or dataset not in N_CLASSES:
        return {}
    n_classes = math.ceil(N_CLASSES[dataset] / (2 if subsample == "base" else 1))
    n_batches = max(1, shots * n_classes // 32)  # of an epoch, which leaves an incomplete one out
    return {"OPTIM.MAX_EPOCH": max(1, round(STEPS[trainer] * shots / n_batches))}


def coop_config(backbone: str, dataset: str, *, shots: int = SHOTS, words: bool = False) -> str:
    """Returns the name of CoOp's config: the papers' epochs by shots, ImageNet always 50; words: "a photo of a"."""
    epochs = "" if backbone == "tiny" else "_ep50" if dataset == "imagenet" else EPOCHS[shots]
    return backbone + epochs + ("_ctxv1" if words else "")


def few_shot_config(trainer: str, backbone: str, dataset: str, *, shots: int = SHOTS) -> str:
    """Returns the name of a method's config for few shots of all classes, where its settings stand in its YAML."""
    if backbone == "vit_b16" and trainer in FEW_SHOT_CONFIGS:
        return FEW_SHOT_CONFIGS[trainer]
    if trainer not in ("TaskRes", "LPPlusPlus", *STEPS) or backbone == "tiny":
        return backbone
    on_imagenet = "_imagenet" if dataset == "imagenet" else ""
    return backbone + on_imagenet + ("_ep100" if trainer == "TaskRes" and shots <= 4 else "")


def zero_shot(dataset: str, cfg: str, *, trainer: str = "ZeroshotCLIP", classes: str = "all") -> Experiment:
    """CLIP with hand-made prompts on all classes, or on the `base` or `new` ones alone."""
    variables = _variables(TRAINER=(trainer, "ZeroshotCLIP"), SUBSAMPLE=(classes, "all"))
    folder = f"{trainer}/{cfg}{'' if classes == 'all' else '_' + classes}/{dataset}"
    command = f"{variables}bash scripts/coop/zeroshot.sh {dataset} {cfg}"
    expected = expected_results(dataset, trainer, cfg, subsample=classes)
    return Experiment(folder, (command,), seeded=False, tests_only=True, expected=expected)


def coop(
    dataset: str,
    cfg: str,
    *,
    trainer: str = "CoOp",
    n_ctx: int = 16,
    shots: int = SHOTS,
    position: str = "end",
    csc: bool = False,
) -> Experiment:
    """CoOp trained and tested on a data set; position: where the class token stands; csc: a context for each class."""
    variables = _variables(TRAINER=(trainer, "CoOp"))
    folder = f"{dataset}/{trainer}/{cfg}_{shots}shots/nctx{n_ctx}_csc{csc}_ctp{position}"
    command = f"{variables}bash scripts/coop/main.sh {dataset} {cfg} {position} {n_ctx} {shots} {csc}"
    context = {"n_ctx": n_ctx, "csc": csc, "class_token_position": position}
    expected = expected_results(dataset, trainer, cfg, source=dataset, shots=shots, **context)
    return Experiment(folder, (command,), expected=expected)


def coop_shifted(dataset: str, cfg: str, *, source: str, n_ctx: int = 16) -> Experiment:
    """The contexts of `coop(source, cfg)`, tested on another data set."""
    variables = _variables(SOURCE=(source, "imagenet"), NCTX=(n_ctx, 16))
    folder = f"evaluation/CoOp/{cfg}_{SHOTS}shots/nctx{n_ctx}_cscFalse_ctpend/{dataset}"
    training = coop(source, cfg, n_ctx=n_ctx)
    command = f"{variables}bash scripts/coop/eval.sh {dataset} {cfg}"
    return _test_of(training, folder, command, dataset=NAMES[dataset])


def of_yaml(dataset: str, trainer: str, cfg: str, *, shots: int = SHOTS) -> Experiment:
    """A method whose settings stand in its YAML, trained and tested on a data set."""
    folder = f"{dataset}/{trainer}/{cfg}_{shots}shots"
    expected = expected_results(dataset, trainer, cfg, source=dataset, shots=shots)
    command = f"TRAINER={trainer} bash scripts/few_shot.sh {dataset} {cfg} {shots}{_pairs(expected)}"
    return Experiment(folder, (command,), expected=expected)


def few_shot(dataset: str, trainer: str, backbone: str, *, shots: int = SHOTS) -> Experiment:
    """Any method, with its config for the data set and the number of shots, trained and tested on a data set."""
    if trainer == "LinearProbe":
        return linear_probe(dataset, backbone, shots=shots)
    if trainer not in ("CoOp", "KgCoOp", "ProGrad"):
        cfg = few_shot_config(trainer, backbone, dataset, shots=shots)
        if (dataset, backbone, shots) == ("imagenet", "vit_b16", SHOTS):  # the run that is tested on other data sets
            return transfer_source(trainer, cfg, source=dataset)
        return of_yaml(dataset, trainer, cfg, shots=shots)
    n_ctx = 4 if trainer == "KgCoOp" else 16
    return coop(dataset, coop_config(backbone, dataset, shots=shots), trainer=trainer, n_ctx=n_ctx, shots=shots)


def linear_probe(dataset: str, cfg: str, *, shots: int = SHOTS) -> Experiment:
    """Logistic regression on image features, trained and tested on a data set."""
    folder = f"{dataset}/LinearProbe/{cfg}_{shots}shots"
    expected = expected_results(dataset, "LinearProbe", cfg, source=dataset, shots=shots)
    return Experiment(folder, (f"bash scripts/linear_probe/main.sh {dataset} {cfg} {shots}",), expected=expected)


def linear_probe_shifted(dataset: str, cfg: str, *, source: str) -> Experiment:
    """The classifier of `linear_probe(source, cfg)`, tested on another data set."""
    variables = _variables(SOURCE=(source, "imagenet"))
    folder = f"evaluation/LinearProbe/{cfg}_{SHOTS}shots/{dataset}"
    training = linear_probe(source, cfg)
    command = f"{variables}bash scripts/linear_probe/eval.sh {dataset} {cfg}"
    return _test_of(training, folder, command, dataset=NAMES[dataset])


def base_classes(dataset: str, trainer: str, cfg: str) -> Experiment:
    """A prompt learner trained and tested on the first half of the classes."""
    variables = _variables(TRAINER=(trainer, "CoCoOp"))
    folder = f"base2new/train_base/{dataset}/shots_{SHOTS}/{trainer}/{cfg}"
    expected = expected_results(dataset, trainer, cfg, source=dataset, subsample="base", shots=SHOTS)
    command = f"{variables}bash scripts/cocoop/base2new_train.sh {dataset} SEED {cfg}{_pairs(expected)}"
    return Experiment(folder, (command,), expected=expected)


def new_classes(dataset: str, trainer: str, cfg: str, *, classes: str = "new") -> Experiment:
    """What `base_classes` trained, tested on the other half of the classes, or on `all` together."""
    variables = _variables(TRAINER=(trainer, "CoCoOp"), SUBSAMPLE=(classes, "new"))
    folder = f"base2new/test_{classes}/{dataset}/shots_{SHOTS}/{trainer}/{cfg}"
    training = base_classes(dataset, trainer, cfg)
    command = f"{variables}bash scripts/cocoop/base2new_test.sh {dataset} SEED {cfg}{_last_epoch(training)}"
    return _test_of(training, folder, command, subsample=classes)


def transfer_source(trainer: str, cfg: str, *, source: str, shots: int = SHOTS) -> Experiment:
    """A prompt learner trained on all classes of the source, tested on them."""
    variables = _variables(TRAINER=(trainer, "CoCoOp"), SOURCE=(source, "imagenet"), SHOTS=(shots, SHOTS))
    folder = f"{source}/{trainer}/{cfg}_{shots}shots"
    expected = expected_results(source, trainer, cfg, source=source, shots=shots)
    command = f"{variables}bash scripts/cocoop/xd_train.sh SEED {cfg}{_pairs(expected)}"
    return Experiment(folder, (command,), expected=expected)


def transfer(dataset: str, trainer: str, cfg: str, *, source: str) -> Experiment:
    """What `transfer_source` trained, tested on another data set."""
    variables = _variables(TRAINER=(trainer, "CoCoOp"), SOURCE=(source, "imagenet"))
    folder = f"evaluation/{trainer}/{cfg}_{SHOTS}shots/{dataset}"
    training = transfer_source(trainer, cfg, source=source)
    command = f"{variables}bash scripts/cocoop/xd_test.sh {dataset} SEED {cfg}{_last_epoch(training)}"
    return _test_of(training, folder, command, dataset=NAMES[dataset])


def nearest_words(dataset: str, cfg: str) -> Experiment:
    """What `coop(dataset, cfg)` trained, and beside each run's log nearest_words.json with the words nearest to it."""
    training = coop(dataset, cfg)
    run = f"${{OUTPUT:-output}}/{training.folder}/seedSEED"
    command = (
        f'"${{PYTHON:-python3}}" interpret_prompt.py "{run}/prompt_learner/model.pth.tar-{max_epoch(cfg)}" 3 '
        f'--json --output "{run}/nearest_words.json"'
    )
    return Experiment(training.folder, (*training.commands, command), expected=training.expected)


def max_epoch(cfg: str) -> int:
    """Returns the number of epochs that a config of CoOp trains."""
    found = re.search(r"_ep(\d+)", cfg)
    return int(found[1]) if found else 12 if cfg.startswith("tiny") else 200


def _test_of(training: Experiment, folder: str, command: str, **expected: Any) -> Experiment:
    """Returns the test of what `training` trained: its folder, its command, and where its results.json differs."""
    commands = (*training.commands, command)
    return Experiment(folder, commands, tests_only=True, expected={**training.expected, **expected})


def _variables(**values: tuple[object, object]) -> str:
    """Returns `NAME=value ` for each (value, the script's default) that differ."""
    return "".join(f"{name}={value} " for name, (value, default) in values.items() if value != default)


def _pairs(expected: Mapping[str, Any]) -> str:
    """Returns ` KEY VALUE` for each setting that is not the config's."""
    return "".join(f" {key} {value}" for key, value in expected.get("settings", {}).items())


def _last_epoch(training: Experiment) -> str:
    """Returns the pair that names a training's last epoch to its test, where that is not the config's."""
    epoch = training.expected.get("settings", {}).get("OPTIM.MAX_EPOCH")
    return f" RUN.LOAD_EPOCH {epoch}" if epoch else ""
