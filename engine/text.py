"""How logs and messages show names and values that come from files: on one line, printable, not too long.

A class name may hold a newline and `* accuracy: 99%`, a terminal's commands, marks that turn the reading direction, or
10,000 characters. Prompts take it as it is; logs and messages take it through one of these functions.
"""

from __future__ import annotations

import unicodedata
from typing import Any

MAX_LENGTH = 1000  # characters of a name; paths may be long


def printable(text: str) -> str:
    """Returns a name as it is, or its repr if a character does not print; a long one is cut."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."


def one_form(name: str) -> str:
    """Returns a name in one Unicode form, NFC, to compare it: disks and editors write an accent in two ways."""
    return unicodedata.normalize("NFC", name)


def encodable(text: str, encoding: str | None) -> str:
    """Returns a text with escapes for the characters that an encoding (None: UTF-8) does not have."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def shorten(value: Any) -> str:
    """Returns the beginning of the repr of any value."""
    text = f"{value!r:.100}"
    return text if len(text) < 100 else f"{text}..."
