"""Text from files and names that others gave, as logs and messages show it: on one line, without what does not print.

A class name may hold a newline and `* accuracy: 99%`, a terminal's commands, marks that turn the reading direction, or
10,000 characters. It goes into prompts as it is; what is printed is written by one of these.
"""

from __future__ import annotations

from typing import Any

LONGEST = 1000  # characters of a name that is shown as it is; paths may be long


def printable(text: str) -> str:
    """Returns a name as it is, or as Python writes it where a character does not print; of a long one the beginning."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def encodable(text: str, encoding: str | None) -> str:
    """Returns a text that an encoding has, UTF-8 if it is None, with escapes for what it has not."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def shorten(value: Any) -> str:
    """Returns the beginning of any value as Python writes it."""
    text = f"{value!r:.100}"
    return text if len(text) < 100 else f"{text}..."
