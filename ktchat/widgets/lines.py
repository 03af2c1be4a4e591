"""Lines of styled text: breaking text to a width, with what a copy of it should contain.

Widths are in cells, and text is never broken inside a grapheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, split_graphemes
from textual.content import Content
from textual.style import Style

Action = tuple[str, tuple[object, ...]]
"""A clickable spot: the name of an action of the widget, and its arguments."""

_SOURCE = "source"
_CHUNK = re.compile(r"\S+\s*|\s+")
_NOT_AT_START = frozenset(
    "、。，．：；！？）］｝」』】》〉”’…・ーぁぃぅぇぉっゃゅょァィゥェォッャュョ%‰°"
)
"""Characters that never begin a line (a short form of the Japanese and Chinese rules)."""
_NOT_AT_END = frozenset("（［｛「『【《〈“‘$￥")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of cells.

    `gutter`: characters at the start that are decoration and not part of a copy. `joint`: what a
    copy puts between the row above and this one ("\\n", or " " and "" where the text was only
    wrapped). `fill`: style of the rest of the row.
    """

    content: Content
    gutter: int = 0
    joint: str = "\n"
    fill: str = ""


BLANK = Line(Content(""))


def styled(text: str, style: str = "", action: Action | None = None) -> Content:
    """Literal text in one style (a component class such as `.dim`), clickable with an `action`."""
    content = Content.styled(text, style) if style else Content(text)
    return content.stylize(Style.from_meta({"@click": action})) if action else content


def copied_as(content: Content, source: str, number: int) -> Content:
    """Text that stands for another, which a copy has in its place; `number` tells it from its neighbours."""
    return content.stylize(Style.from_meta({_SOURCE: (number, source)}))


def wrap(content: Content, width: int) -> list[Line]:
    """Break one or more lines of text to at most `width` cells a row; spaces at breaks go."""
    width = max(2, width)
    rows: list[Line] = []
    for paragraph in content.split(allow_blank=True) or [content]:
        text = paragraph.plain
        if cell_len(text) <= width:
            rows.append(Line(paragraph))
            continue
        joint = "\n"
        for part in paragraph.divide(list(_breaks(text, width))):
            trimmed = part.rstrip()
            rows.append(Line(trimmed, joint=joint))
            joint = " " if len(trimmed) < len(part) else ""
    return rows


def fold(content: Content, width: int) -> list[Line]:
    """Break one line of code at exactly `width` cells, keeping every character."""
    if content.cell_length <= width:
        return [Line(content)]
    cuts = list(_fold(content.plain, 0, max(2, width), 0))
    parts = content.divide(cuts)
    return [Line(part, joint="" if number else "\n") for number, part in enumerate(parts)]


def indent(lines: Iterable[Line], first: Content, rest: Content | None = None) -> list[Line]:
    """Put decoration before each line: `first` before the first, `rest` (or blanks) before others."""
    hanging = Content(" " * first.cell_length) if rest is None else rest
    return [
        replace(line, content=lead + line.content, gutter=line.gutter + len(lead))
        for number, line in enumerate(lines)
        for lead in (hanging if number else first,)
    ]


def ends(left: Content, right: Content, width: int) -> Content:
    """`left` and `right` at the two ends of a row; `left` is cut where both do not fit."""
    room = width - right.cell_length
    if room < 4:
        return left.truncate(width, ellipsis=True)
    if left.cell_length > room - 1:
        left = left.truncate(room - 1, ellipsis=True)
    return left + Content(" " * (room - left.cell_length)) + right


def copied(lines: Sequence[Line], start: int, start_x: int, end: int, end_x: int) -> str:
    """The text from character `start_x` of line `start` to `end_x` of line `end`, undecorated."""
    parts: list[str] = []
    last: object = None  # what stood for another text at the end of the row above
    for number in range(max(0, start), min(end, len(lines) - 1) + 1):
        line = lines[number]
        text = line.content.plain
        if line.gutter and line.gutter >= len(text):
            continue  # nothing but decoration
        low = max(line.gutter, start_x if number == start else 0)
        high = min(end_x, len(text)) if number == end else len(text)
        known = last if line.joint != "\n" else None
        undecorated, last, goes_on = _with_sources(line.content, low, high, known)
        parts += [line.joint if parts and not goes_on else "", undecorated.rstrip()]
    return "".join(parts)


def _with_sources(content: Content, low: int, high: int, known: object) -> tuple[str, object, bool]:
    """Part of a row with the sources of what stands for another text, what does so at its end, and whether it began above.

    `known`: what did so at the end of the row above.
    """
    text = content.plain
    marks = sorted(
        (span.start, span.end, span.style.meta[_SOURCE])
        for span in content.spans
        if isinstance(span.style, Style) and _SOURCE in span.style.meta
    )
    parts: list[str] = []
    last: object = None
    goes_on = False
    for begin, stop, mark in marks:
        if stop <= low or begin >= high:
            continue
        if mark == known and begin <= low and not parts:
            goes_on = True
        else:
            parts += [text[low:begin], mark[1]]
        low, last = max(low, stop), mark if stop >= len(text) else None
    parts.append(text[low:high])
    return "".join(parts), last, goes_on


def _breaks(text: str, width: int) -> Iterator[int]:
    """Offsets at which `text` is broken, greedily."""
    used = 0
    for start, chunk in _chunks(text):
        cells = cell_len(chunk.rstrip())
        if used and used + cells > width:
            yield start
            used = 0
        if cells > width:
            cuts = list(_fold(chunk.rstrip(), start, width, used))
            yield from cuts
            used = cell_len(chunk[(cuts[-1] - start) if cuts else 0 :])
        else:
            used += cell_len(chunk)


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """Unbreakable pieces with the white space after them; wide characters stand alone."""
    for match in _CHUNK.finditer(text):
        chunk = match.group()
        if chunk.isascii() or cell_len(chunk) == len(chunk):
            yield match.start(), chunk
        else:
            yield from _wide_chunks(match.start(), chunk)


def _wide_chunks(offset: int, chunk: str) -> Iterator[tuple[int, str]]:
    """A word split before and after its wide characters, punctuation kept where it belongs."""
    piece, begin, glued = "", 0, True
    for start, end, cells in split_graphemes(chunk)[0]:
        grapheme = chunk[start:end]
        wide = cells == 2
        sticks = glued or grapheme.isspace() or grapheme[0] in _NOT_AT_START
        if piece and not sticks and (wide or _ends_wide(piece)):
            yield offset + begin, piece
            piece, begin = "", start
        piece += grapheme
        glued = grapheme[0] in _NOT_AT_END
    if piece:
        yield offset + begin, piece


def _ends_wide(piece: str) -> bool:
    stripped = piece.rstrip()
    return len(stripped) < len(piece) or cell_len(stripped[-1:]) == 2 or stripped[-1] in "，。、"


def _fold(text: str, offset: int, width: int, used: int) -> Iterator[int]:
    """Offsets that cut `text` into rows of `width` cells, the first having `used` cells taken."""
    for start, _, cells in split_graphemes(text)[0]:
        if used + cells > width:
            yield offset + start
            used = 0
        used += cells
