"""Where a long text may be cut into pieces that are read one by one, and what a piece goes on with.

A cut depends on nothing but what is before it and `LIMIT` characters behind the one before, so that a text that grows is
cut as the whole is. Best is a blank line before a line that is not indented; then a place within a code block, a
table or a list; a single long line is cut between words. Cuts within a block cost what Markdown would say across them: a
pair of asterisks around one is not bold.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

SIZE, LINES = 4_000, 400
"""Characters or lines, whichever are fewer, from which on a piece may end."""

LIMIT = 3 * SIZE
"""Characters with which a piece is cut, or as many times its lines."""

Kind = Literal["block", "code", "table", "line"]

_FENCE = re.compile(r"^[ ]*(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$", re.MULTILINE)
_AFTER_BLANK = re.compile(r"\n[ \t]*\n(?=[^\s])")
_LINE = re.compile(r"\n(?=[^\s])")
_TABLE = re.compile(r"^([^\n]*\|[^\n]*\n[ ]{0,3}[|:]?[ |:\-]*-[ |:\-]*)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a piece goes on with: a block of its own, or one that was cut."""

    kind: Kind = "block"
    lead: str = ""
    """Put before a piece of code or of a table, so that it is one when it is read alone."""
    indent: int = 0
    """Spaces that are taken from its lines."""
    joint: str = "\n"
    """What a copy puts before it, as in `Line`."""


def cut_markdown(text: str, opening: Opening) -> tuple[int, Opening] | None:
    """Where the first piece of Markdown ends, and what the next goes on with; None: the text is short."""
    if (sizes := _sizes(text)) is None:
        return None
    size, limit = sizes
    text = text[:limit]
    codes = _codes(text, opening)
    for found in _AFTER_BLANK.finditer(text, size):
        if not _within(found.end(), codes):
            return found.end(), Opening()
    line = text.find("\n", size) + 1
    code = _within(line, codes) if line else _within(size, codes)
    if code is not None:
        return (line, code) if line else (_cut_line(text)[0], replace(code, joint=""))
    for found in _LINE.finditer(text, size):
        if not _within(found.end(), codes):
            return found.end(), _block_at(text, found.end(), opening)
    if line:
        return line, Opening("line", indent=len(text[line:]) - len(text[line:].lstrip(" ")))
    return _cut_line(text)


def cut_plain(text: str) -> tuple[int, Opening] | None:
    """The same for text without marks."""
    if (sizes := _sizes(text)) is None:
        return None
    size, limit = sizes
    line = text.find("\n", size, limit) + 1
    return (line, Opening("line")) if line else _cut_line(text[:limit])


def _sizes(text: str) -> tuple[int, int] | None:
    """Characters from which on the first piece may end, and how many are looked at; None: the text is short."""
    lines = text.count("\n", 0, LIMIT)
    if len(text) < LIMIT and lines < 3 * LINES:
        return None
    if lines < LINES:
        return SIZE, LIMIT
    parts = text[:LIMIT].split("\n", 3 * LINES)
    size = sum(map(len, parts[:LINES])) + LINES
    return min(SIZE, size), min(LIMIT, len(text)) if lines < 3 * LINES else len(text[:LIMIT]) - len(
        parts[-1]
    )


def _cut_line(text: str) -> tuple[int, Opening]:
    """A line that does not end is cut behind a space, or between two characters."""
    space = text.find(" ", SIZE)
    if space >= 0:
        return space + 1, Opening("line", joint=" ")
    at = SIZE
    while at < len(text) - 1 and (_joins(text[at]) or _joins(text[at - 1])):
        at += 1
    return at, Opening("line", joint="")


def _joins(char: str) -> bool:
    """Whether a character belongs to what is beside it: marks, joiners, halves of flags."""
    return (
        unicodedata.category(char)[0] in "MC"
        or "\U0001f1e6" <= char <= "\U0001f1ff"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
    )


_Code = tuple[int, int, Opening]
"""Where a code block's text begins and ends, and the opening of a piece that is cut within."""


def _codes(text: str, opening: Opening) -> list[_Code]:
    """The fenced code blocks; the last may have no end."""
    found: list[_Code] = []
    inside = replace(opening, joint="\n") if opening.kind == "code" else None
    start = 0
    if "```" in text or "~~~" in text:
        for match in _FENCE.finditer(text):
            mark, info = match.group(1), match.group(2)
            if inside is None:
                lead = f"{mark}{info}\n"
                inside = Opening("code", lead, match.start(1) - match.start())
                start = match.end() + 1
            elif not info.strip() and mark.startswith(_mark(inside)):
                found.append((start, match.start(), inside))
                inside = None
    if inside is not None:
        found.append((start, len(text) + 1, inside))
    return found


def _mark(opening: Opening) -> str:
    """The fence that a code block began with."""
    lead = opening.lead
    return lead[: len(lead) - len(lead.lstrip(lead[0]))]


def _within(at: int, codes: list[_Code]) -> Opening | None:
    return next((opening for start, end, opening in codes if start <= at < end), None)


def _block_at(text: str, at: int, opening: Opening) -> Opening:
    """What a piece goes on with that begins at a line within a block."""
    blank = text.rfind("\n\n", 0, at)
    if blank < 0 and opening.kind == "table":
        return replace(opening, joint="\n")
    if "|" not in text:
        return Opening("line")
    heads = list(_TABLE.finditer(text, blank + 2 if blank >= 0 else 0, at))
    if heads:
        return Opening("table", heads[-1].group(1) + "\n")
    return Opening("line")
