"""The lists in templates.py under the original's name, for plug-ins: `from .imagenet_templates import ...`.

Each file that imports a list has one of its own: the original's ZeroshotCLIP2 adds the data set's prompt to it.
"""

from __future__ import annotations

from . import templates


def __getattr__(name: str) -> list[str]:
    if name in ("IMAGENET_TEMPLATES", "IMAGENET_TEMPLATES_SELECT"):
        return list(getattr(templates, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
