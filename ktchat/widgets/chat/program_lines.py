"""What the program says within a reply: with a mark and a style of its own, seen without colours too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from textual.content import Content

from ktchat.widgets.lines import Line, indent, styled, wrap

MARK = "▌ "
"""Before every line that is the program's and not the model's."""


def note(text: str, width: int) -> list[Line]:
    """Something said in passing; no copy of the reply has it."""
    return said(styled(text, ".note"), ".note", width)


def said(words: Content, style: str, width: int) -> list[Line]:
    """Words in their own style; no copy of the reply has them."""
    rows = marked(wrap(words, width - len(MARK)), style)
    return [replace(row, gutter=len(row.content)) for row in rows]


def marked(rows: Iterable[Line], style: str) -> list[Line]:
    """Rows with the mark, which a copy has too."""
    bar = styled(MARK, style)
    return [replace(row, gutter=0) for row in indent(rows, bar, bar)]
