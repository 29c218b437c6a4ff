"""The YAML that a run's folder names, beside the settings that the run was made with."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from engine.config.defaults import NOT_IN_DIGEST, OTHER_LIBRARIES, PREPROCESSING, get_cfg_default
from engine.config.load import ConfigError, flatten, merge, read_yaml
from engine.run.names import CONFIG
from engine.text import printable

from .experiments import NAMES, TRAINERS
from .logged_config import in_json, literal, logged_settings
from .runs import MODEL_OF, Run

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "trainers"
BACKBONE = "MODEL.BACKBONE.NAME"
NOT_COMPARED = {  # what the folder's name shows (see `mismatch`), where the data lie, and what changes no accuracy
    *NOT_IN_DIGEST,
    *("SEED", "DATASET.NAME", "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES", "TRAINER.NAME", "TEST.SPLIT"),
    *("RUN.EVAL_ONLY", "RUN.MODEL_DIR", "RUN.LOAD_EPOCH", "RUN.DETERMINISTIC", "DATASET.CLASSNAMES"),
    *("DATALOADER.TEST.BATCH_SIZE", "TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT", "TEST.NO_TEST"),
}
OF_TRAINING = ("OPTIM.", "TRAIN.", "DATALOADER.")  # groups of keys that a test does not use
PROMPT = (".N_CTX", ".CSC", ".CLASS_TOKEN_POSITION")  # keys that a folder nctxN_cscC_ctpP shows
NAME = re.compile(r"\w[\w.+-]{0,100}")  # of a file: results.json may say anything
MOST_NAMED, LONGEST_VALUE = 5, 100  # keys, characters


def brief(text: str) -> str:
    """Returns the beginning of a value as it goes into a sentence."""
    return printable(text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}...")


def named_backbone(trainer: str, cfg: str) -> str:
    """Returns the CLIP that a config names; "" where the config is not there."""
    with contextlib.suppress(ConfigError):
        return json.loads(_named_settings(trainer, cfg).get(BACKBONE, '""'))
    return ""


def unlike_config(runs: Sequence[Run]) -> list[str]:
    """Returns a sentence on each way in which runs differ from the config that their folder names."""
    said: dict[str, list[str]] = {}
    for run in runs:
        for sentence in _differences(run):
            said.setdefault(sentence, []).append(printable(run.folder.name))
    return [f"{', '.join(names)}: {sentence}" for sentence, names in said.items()]


def _differences(run: Run) -> list[str]:
    trainer, cfg = run.identity.get("trainer"), run.identity.get("cfg")
    if not isinstance(trainer, str) or not isinstance(cfg, str):
        return []
    try:
        named = {**_named_settings(trainer, cfg), **run.meant}
    except ConfigError as error:
        return [f"it cannot be compared with its config. {error}"]
    made = _made(run, named) if named else {}
    said = []
    for key, value in made.items():
        other = named.get(key) or default_settings().get(key, "")
        if not _is_same(value, other) and not (key == BACKBONE and _is_file_of(value, other)):
            says = f"{cfg}.yaml says {brief(other)}" if other else f"{cfg}.yaml does not set it"
            says = f"{brief(other)} is meant here" if key in run.meant else says
            said.append(f"{key} {brief(value)} ({says})")
    more = f" and {len(said) - MOST_NAMED} more" if len(said) > MOST_NAMED else ""
    return [f"made with {', '.join(said[:MOST_NAMED])}{more}."] if said else []


def _made(run: Run, named: Mapping[str, str]) -> dict[str, str]:
    """Returns the values in JSON that a run was made with: of the keys that are named, and of those it has changed."""
    if not run.settings:  # of a log, which has all keys
        return {key: run.logged[key] for key in _compared(run, named) if key in run.logged}
    own = {key: value for key, value in run.settings.items() if not key.startswith(MODEL_OF)}
    model = {key.removeprefix(MODEL_OF): value for key, value in run.settings.items() if key.startswith(MODEL_OF)}
    made, defaults = {}, default_settings()
    for settings in filter(None, (own, model)):
        for key in _compared(run, named.keys() | settings.keys()):
            if "RUN.PLUGINS" in settings and key not in defaults and key not in named:
                continue  # a plug-in's key, which stands in the settings at its default too
            value = settings.get(key) or defaults.get(key) or _from_config_file(run, key)
            if value and not (settings is own and model and key.startswith(OF_TRAINING)):
                made[key] = value
    last, training = named.get("OPTIM.MAX_EPOCH"), model or own
    if run.epoch and "TEST.FINAL_MODEL" not in training and made.get("OPTIM.MAX_EPOCH") == last:
        made["OPTIM.MAX_EPOCH"] = str(run.epoch)  # of a model that was not the last
    return made


def _compared(run: Run, keys: Iterable[str]) -> list[str]:
    shown = run.folder.absolute().parts[-4:]
    left_out = NOT_COMPARED | {pair.split("=")[0] for name in shown for pair in name.split(",") if "=" in pair}
    if run.identity.get("trainer") not in TRAINERS or run.identity.get("dataset") not in NAMES.values():
        left_out.add("RUN.PLUGINS")  # what the user adds; elsewhere a plug-in may replace what is ours
    said = (run.settings.get(BACKBONE) or run.settings.get(MODEL_OF + BACKBONE)) if run.settings else None
    if (said or run.logged.get(BACKBONE, "")).strip('"').startswith(OTHER_LIBRARIES):
        left_out.update(PREPROCESSING)  # its weights say them; of others that a pair has set, the run has warned
    has_prompt = any(re.match(r"nctx\d+_csc", name) for name in shown)
    return sorted(key for key in keys if key not in left_out and not (has_prompt and key.endswith(PROMPT)))


@lru_cache
def _named_settings(trainer: str, cfg: str) -> Mapping[str, str]:
    """Returns the keys that a config sets, with their values in JSON; none where it is not there.

    Raises:
        ConfigError: It is not YAML.
    """
    folder = "CoOp" if trainer.startswith("ZeroshotCLIP") else trainer  # as scripts/coop/zeroshot.sh
    path = CONFIGS / folder / f"{cfg}.yaml"
    if not (NAME.fullmatch(folder) and NAME.fullmatch(cfg) and path.is_file()):
        return {}
    values, typed = read_yaml(path), get_cfg_default()
    known = flatten(typed)
    merge(typed, {key: value for key, value in values.items() if key in known}, str(path))
    typed = flatten(typed)
    return {key: in_json(typed[key] if key in known else literal(value)) for key, value in values.items()}


@lru_cache
def default_settings() -> Mapping[str, str]:
    """Returns the default of every key but the trainers' own, in JSON."""
    return {key: in_json(value) for key, value in flatten(get_cfg_default()).items()}


def _from_config_file(run: Run, key: str) -> str:
    """Returns the value in JSON of a trainer's key that results.json leaves out, being the default; "": not known."""
    path = run.folder / CONFIG
    if not path.is_file():
        return ""
    found = logged_settings(path.read_text(encoding="utf-8", errors="replace").splitlines()).get(key)
    return found or ""


def _is_same(made: str, said: str) -> bool:
    """Whether two values in JSON are one: a YAML file may leave out a number's decimal point."""
    if made == said or not said or {made, said} & {"true", "false"}:  # in Python, True is 1
        return made == said
    return json.loads(made) == json.loads(said)


def _is_file_of(made: str, said: str) -> bool:
    """Whether a path is that of OpenAI's file of a backbone: ViT-B-16.pt for ViT-B/16."""
    path, name = json.loads(made), json.loads(said) if said else ""
    return isinstance(path, str) and Path(path).stem == str(name).replace("/", "-")
