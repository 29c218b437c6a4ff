"""A plug-in's own copy of CLIP's package: it builds its own model, from this project's weights and vocabulary.

Source of the names: https://github.com/openai/CLIP. Copies of it in other repositories change `build_model` and what it
builds; where weights come from, they leave as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from clip.clip import _MODELS, _download, available_models
from clip.simple_tokenizer import default_bpe
from engine.config.plugin_imports import after_import, repository_of


@after_import
def complete_clip(module: ModuleType) -> None:
    """Lets a module of CLIP's, of those in a plug-in's repository, find weights and vocabulary."""
    if _defines(module, "_download") and isinstance(vars(module).get("_MODELS"), dict):
        _serve_weights(module)
    if _defines(module, "SimpleTokenizer"):
        _serve_vocabulary(module.SimpleTokenizer)
    if _defines(module, "convert_weights"):
        module.convert_weights = lambda model: None  # to float16: as ours, its CLIP comes in float32


def clip_of(trainer: type) -> str:
    """Returns which CLIP a plug-in's trainer has imported; "" for a trainer that is from no plug-in's file."""
    repository = repository_of(trainer.__module__)
    if repository is None:
        return ""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(f"{repository.name}.")]
    own = sorted({str(Path(module.__file__).parent) for module in modules if _defines(module, "build_model")})
    return f"the plug-in's own, {', '.join(own)}" if own else "this project's"


def _defines(module: ModuleType, name: str) -> bool:
    return getattr(vars(module).get(name), "__module__", None) == module.__name__


def _serve_weights(module: ModuleType) -> None:
    """Takes what ours knows by name or path from our cache, the embedded model too; other addresses stay the copy's."""
    ours, download = {name: _MODELS[name] for name in available_models()}, module._download
    module._MODELS = type(_MODELS)({**ours, **module._MODELS})

    def download_from_ours(url: str, root: str | Path | None = None, *values, **named) -> str:
        is_theirs = "://" in url and url not in ours.values()
        return download(url, root, *values, **named) if is_theirs else str(_download(url, root))

    module._download = download_from_ours


def _serve_vocabulary(tokenizer: type) -> None:
    """Gives our vocabulary file where the copy came without it: `bpe_path` has the path as its default."""
    init = tokenizer.__init__
    missing = {path for path in init.__defaults__ or () if isinstance(path, str) and not Path(path).is_file()}
    init.__defaults__ = tuple(default_bpe() if path in missing else path for path in init.__defaults__ or ())
