"""How a run's epoch and hyper-parameters are chosen: found from the items before training, said with the results.

A choice has one of four rules:

none                   nothing is chosen: the last epoch, what the config says
few-shot validation    by at most min(shots, 4) images of each class, as in the papers, or by FEWSHOT_FILE's
full validation        by more; where all training images are used this is usual
test (oracle)          by test images, so on new images the accuracy may be lower

The last one is refused unless TEST.ALLOW_ORACLE is True; so is full validation in a few-shot run. With it, the run
warns. A test of a trained model (--eval-only) takes over what its training says; None: that is not known. What it
fits a temperature on by a DATASET.SELECTION of its own counts as a choice of a hyper-parameter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from yacs.config import CfgNode as CN

from ..config.defaults import BEST_ON
from ..config.load import ConfigError
from ..data.datum import Datum, items_of
from ..registry import DATASET_REGISTRY
from .after_test import why_no_temperature
from .folder import read_results

NONE, FEW_SHOT, FULL, ORACLE = RULES = ("none", "few-shot validation", "full validation", "test (oracle)")
MOST = 4  # validation images of a class in a few-shot run, at most its shots

Rules = dict[str, str | None]  # "epoch" and "hyperparameters", each with its rule


@dataclass(frozen=True)
class Choice:
    """What is chosen, in words; the config's key that says how; its value that is always allowed; the items."""

    what: str
    key: str
    allowed: str
    items: Sequence[Datum]


def selection_of(trainer, training: CN | None) -> Rules:
    """Returns the entry `selection` of results.json, and warns of what makes the results doubtful.

    Args:
        trainer: Built, and not yet trained; loaded if it is only tested.
        training: The config of the training: the trainer's own, or in a test alone that of the run whose model it is;
            None where it is not there.

    Raises:
        ConfigError: If test images choose, or full validation in a few-shot run, and TEST.ALLOW_ORACLE is False; if
            DATASET.SELECTION says what the method, or the data set, does not have.
    """
    cfg = trainer.cfg
    require_selection(trainer)
    if cfg.RUN.EVAL_ONLY:
        rules, is_same = carried_rules(trainer, training), knows_classes(cfg, training)
    else:
        rules, is_same = {name: rule_of(x, trainer) for name, x in choices_of(trainer, cfg).items()}, True
    doubtful = [name for name, rule in rules.items() if is_doubtful(rule, training)]
    choices = choices_of(trainer, training) if training else {}
    if doubtful and not (cfg.TEST.ALLOW_ORACLE or cfg.RUN.EVAL_ONLY):
        raise ConfigError("\n".join(refusal(choices[name], rules[name], trainer) for name in doubtful))
    for name, choice in choices.items():
        if rules[name] not in (NONE, None):
            n_tested = n_both(choice.items, items_of(trainer.dm.dataset, cfg.TEST.SPLIT)) if is_same else 0
            if n_tested or name in doubtful:
                trainer.warnings.add(warning(choice, rules[name], trainer, training, n_tested))
    if items := temperature_items(trainer):
        choice = Choice("the temperature", "DATASET.SELECTION", "few_shot_val", items)
        rule = rule_of(choice, trainer)
        if is_doubtful(rule, training):
            trainer.warnings.add(warning(choice, rule, trainer, training or cfg, 0))
        rules["hyperparameters"] = strictest(rules["hyperparameters"], rule)
    return rules


def temperature_items(trainer) -> Sequence[Datum]:
    """Returns what a test alone fits its temperature on where that is not few-shot validation; else nothing.

    In a training it is what chooses the hyper-parameters.
    """
    cfg = trainer.cfg
    is_own = cfg.RUN.EVAL_ONLY and cfg.DATASET.SELECTION != "few_shot_val" and not why_no_temperature(trainer)
    return trainer.dm.dataset.selection if is_own and cfg.TEST.TEMPERATURE else ()


def strictest(*rules: str | None) -> str:
    """Returns the one of several rules that needs the most images; what is not known does not count."""
    return max(filter(None, rules), key=RULES.index)


def require_selection(trainer) -> None:
    """Raises ConfigError if a training is to choose what the method does not, or by items that are not there."""
    cfg, dataset = trainer.cfg, trainer.dm.dataset
    if cfg.DATASET.SELECTION == "few_shot_val" or cfg.RUN.EVAL_ONLY:
        return
    if not type(trainer).searched(cfg):
        what = f"{cfg.TRAINER.NAME} chooses no hyper-parameters"
    elif not dataset.reads_selection:
        what = f"the data set {cfg.DATASET.NAME} says itself by which items to choose"
    elif not dataset.selection:
        what = f"the data set {cfg.DATASET.NAME} has no validation images"
    else:
        return
    raise ConfigError(f"DATASET.SELECTION is {cfg.DATASET.SELECTION}, but {what}. Leave it at few_shot_val.")


def choices_of(trainer, cfg: CN) -> dict[str, Choice]:
    """Returns what a training with `cfg`, on the trainer's data set, chooses; without items where nothing is chosen."""
    dataset, split, names = trainer.dm.dataset, BEST_ON.get(cfg.TEST.FINAL_MODEL), type(trainer).searched(cfg)
    by_epoch = items_of(dataset, split) if split and has_epochs(trainer) else ()
    by_search: Sequence[Datum] = ()
    if names and cfg.DATASET.SELECTION == "test":
        by_search = dataset.test  # where another run has chosen, `selection` is not what it was there
    elif names:  # some methods leave out what they train on
        by_search = trainer.choice_items() if trainer.choice_items else dataset.selection
    method = f"{' and '.join(names) or 'the hyper-parameters'} of {cfg.TRAINER.NAME}"
    return {
        "epoch": Choice("the epoch", "TEST.FINAL_MODEL", "last_step", by_epoch),
        "hyperparameters": Choice(method, "DATASET.SELECTION", "few_shot_val", by_search),
    }


def has_epochs(trainer) -> bool:
    """Says whether the loop trains the method; some are fitted at once, in a `train` of their own."""
    n_own = sum("train" in vars(base) for base in type(trainer).__mro__)  # 1: that of all trainers alone
    return n_own == 1 or any(trainer.optims.values())


def rule_of(choice: Choice, trainer) -> str:
    """Returns the rule of a choice, from its items."""
    cfg, dataset = trainer.cfg, trainer.dm.dataset
    if not choice.items:
        return NONE
    if n_both(choice.items, dataset.test):
        return ORACLE
    is_drawn = choice.key != "DATASET.SELECTION" or cfg.DATASET.SELECTION == choice.allowed
    is_listed = bool(cfg.DATASET.FEWSHOT_FILE) and dataset.reads_selection and is_drawn
    is_few = is_few_shot(cfg) and largest_class(choice.items) <= most(cfg)
    return FEW_SHOT if is_few or is_listed else FULL


def carried_rules(trainer, training: CN | None) -> Rules:
    """Returns the rules of the training whose model is tested; of a run that does not say them, by its config.

    An epoch that is named chooses nothing if it is the last one; of any other, it is not known who has chosen it. A
    choice of sweep.py counts, too.
    """
    run, dataset = trainer.cfg.RUN, trainer.dm.dataset
    if not run.MODEL_DIR:
        return {"epoch": NONE, "hyperparameters": NONE}
    results = read_results(run.MODEL_DIR) or {}
    said = results.get("selection") if isinstance(results.get("selection"), dict) else {}
    stated = rules_by_config(trainer, training)
    rules = {name: said[name] if said.get(name) in RULES else rule for name, rule in stated.items()}
    if run.LOAD_EPOCH >= 0 and training is not None and run.LOAD_EPOCH == training.OPTIM.MAX_EPOCH:
        rules["epoch"] = NONE
    elif run.LOAD_EPOCH >= 0 and run.LOAD_EPOCH != results.get("epoch"):
        rules["epoch"] = None
    if run.SEARCHED:
        by_sweep = rule_of(Choice(", ".join(run.SEARCHED), "RUN.SEARCHED", "", dataset.val), trainer)
        rules["hyperparameters"] = strictest(rules["hyperparameters"], by_sweep)
    return rules


def rules_by_config(trainer, cfg: CN | None) -> Rules:
    """Returns the rules as a training's config says them, without its items; None for what it does not."""
    if cfg is None:
        return {"epoch": None, "hyperparameters": None}
    usual = FEW_SHOT if is_few_shot(cfg) else FULL
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME) if cfg.DATASET.NAME in DATASET_REGISTRY else None
    val_is_test = getattr(dataset, "val_is_test", False)
    best_on = BEST_ON.get(cfg.TEST.FINAL_MODEL) if has_epochs(trainer) else None
    by_epoch = {None: NONE, "val": ORACLE if val_is_test else usual, "test": ORACLE}
    by_search = {"few_shot_val": usual, "full_val": ORACLE if val_is_test else FULL, "test": ORACLE}
    searches = bool(type(trainer).searched(cfg))
    return {"epoch": by_epoch[best_on], "hyperparameters": by_search.get(cfg.DATASET.SELECTION) if searches else NONE}


def knows_classes(cfg: CN, trained_on: CN | None) -> bool:
    """Says whether a test is on the data set and the classes of the training."""
    keys = ("NAME", "ROOT", "SUBSAMPLE_CLASSES")
    return trained_on is not None and all(cfg.DATASET[key] == trained_on.DATASET[key] for key in keys)


def is_doubtful(rule: str | None, training: CN | None) -> bool:
    """Says whether a choice by this rule needs TEST.ALLOW_ORACLE."""
    return rule == ORACLE or (rule == FULL and (training is None or is_few_shot(training)))


def is_few_shot(cfg: CN) -> bool:
    return cfg.DATASET.NUM_SHOTS >= 1 or bool(cfg.DATASET.FEWSHOT_FILE)


def most(cfg: CN) -> int:
    """Returns how many images of a class may choose in a few-shot run."""
    return min(cfg.DATASET.NUM_SHOTS, MOST) if cfg.DATASET.NUM_SHOTS >= 1 else MOST


def paths(items: Sequence[Datum]) -> set[str]:
    return {item.impath for item in items}


def n_both(items: Sequence[Datum], others: Sequence[Datum]) -> int:
    """Returns how many images are in both lists."""
    return len(paths(items) & paths(others))


def largest_class(items: Sequence[Datum]) -> int:
    """Returns the number of images of the class with the most."""
    return max(Counter(label for _, label in {(item.impath, item.label) for item in items}).values())


def refusal(choice: Choice, rule: str, trainer) -> str:
    """Returns what is wrong with a choice, and what to do."""
    cfg, (group, name) = trainer.cfg, choice.key.split(".")
    if rule == ORACLE:
        n, of = n_both(choice.items, trainer.dm.dataset.test), len(paths(choice.items))
        found = f"{n:,} of the {of:,} images to choose {choice.what} by are test images; none may be"
    else:
        found = f"there are {largest_class(choice.items):,} images of a class to choose {choice.what} by; in a few-shot"
        found += f" run at most {most(cfg)} may be"
    remedy = f"Set {choice.key} to {choice.allowed}"
    if cfg[group][name] == choice.allowed:
        remedy = f"Correct the selection items of the data set {cfg.DATASET.NAME}"
    return (
        f"{choice.key} is {cfg[group][name]}, but {found}. {remedy}, or set TEST.ALLOW_ORACLE to True: then the "
        "results and every table say so."
    )


def warning(choice: Choice, rule: str, trainer, training: CN, n_tested: int) -> str:
    """Returns what makes results doubtful after a choice, of which `n_tested` items are tested on."""
    who = f"Test images of {training.DATASET.NAME} have"
    if n_tested:
        n_all = len(paths(items_of(trainer.dm.dataset, trainer.cfg.TEST.SPLIT)))
        who = f"{n_tested:,} of the {n_all:,} images tested on have"
    elif rule == FULL:
        who = "More validation images than few shots have"
    so = ", so on new images the accuracy may be lower" if n_tested else ""
    do = "test" if trainer.cfg.RUN.EVAL_ONLY and choice.what == "the temperature" else "train"
    advice = f"Say so beside the number, or {do} with {choice.key} {choice.allowed}."
    return f"{who} chosen {choice.what}{so}. {advice}"
