"""One HTML file that needs no other one: its style is in it, and it asks for no script."""

from __future__ import annotations

from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("page.css")


def document(title: str, body: str, *styles: Path) -> str:
    """Returns a page.

    Args:
        title: As text.
        body: As HTML.
        styles: CSS files on top of the one that all pages have.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in (STYLE, *styles))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
