"""Columns of text by the cells of a terminal: Chinese, Japanese and Korean characters take two, marks none.

Widths are those of Unicode Standard Annex 11. `len()` and the format `:<8` count characters instead.
"""

from __future__ import annotations

import re
import unicodedata

_OPEN, _CLOSE = "（《「『【", "、。，．：；！？）》」』】"
_WIDE = "\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60"
_UNIT = re.compile(rf"\s*[{_OPEN}]*(?:[^\s{_WIDE}]+|[{_WIDE}]|$)[{_CLOSE}]*")
"""What stays on one line: a word, or a wide character, with the brackets and marks that belong to it."""


def cells(text: str) -> int:
    """How many cells a line of text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def ljust(text: str, width: int) -> str:
    """The text with spaces after it, up to `width` cells; a longer one stays as it is."""
    return text + " " * (width - cells(text))


def rjust(text: str, width: int) -> str:
    """The text with spaces before it, up to `width` cells; a longer one stays as it is."""
    return " " * (width - cells(text)) + text


def cut(text: str, width: int) -> str:
    """The beginning of the text that takes at most `width` cells, with all marks of its last character."""
    if text.isascii():
        return text[:width]
    left = width
    for at, char in enumerate(text):
        left -= _cells_of(char)
        if left < 0:
            return text[:at]
    return text


def shorten(text: str, width: int) -> str:
    """The text in at most `width` cells (1 or more): a longer one ends in `…`."""
    return text if cells(text) <= width else cut(text, width - 1).rstrip() + "…"


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` cells, broken at spaces and between wide characters.

    A word longer than a line stays whole; no line begins with a full-width mark that ends something.
    """
    lines: list[str] = []
    for unit in _UNIT.findall(text):
        if lines and cells(lines[-1]) + cells(unit) <= width:
            lines[-1] += unit
        elif unit.strip():
            lines.append(unit.lstrip())
    return lines


def _cells_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
