"""Where the lines of the prompt are broken, also when one of them has hundreds of thousands of characters.

As Textual's own wrapping, but an edit wraps again from two rows above it to where the breaks are the old ones, a word
that is longer than a row is never cut within a cluster, and what is asked for one row costs one row.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from rich.cells import cell_len
from textual._wrap import compute_wrap_offsets
from textual.document._document import Document, EditResult, Location
from textual.document._document_navigator import DocumentNavigator
from textual.document._wrapped_document import WrappedDocument
from textual.expand_tabs import expand_tabs_inline, get_tab_widths
from textual.geometry import Offset

from ktchat.widgets import graphemes

_CHUNK = re.compile(r"\S+\s*|\s+")
_NARROW = " -~"
_WIDE = "\u3001-\u3029\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\uac00-\ud7a3\uff01-\uff60"
_OTHER = f"[^{_NARROW}{_WIDE}]"
_RUN = re.compile(
    f"(?P<narrow>(?:[{_NARROW}](?!{_OTHER})){{1,999}})|(?P<wide>(?:[{_WIDE}](?!{_OTHER})){{1,999}})"
    f"|.(?:\u200d.|{_OTHER})*",
    re.S,
)
"""Stretches of characters that take one cell, or two; others, with the one before them that they may belong to."""


AHEAD, LONG = 64, 4096
"""Rows behind an edit after which a row is left short rather than to break all that follows anew; characters of a word
that has no room in a row, whatever they are."""


class PromptDocument(Document):
    """A document that joins its lines once for each edit."""

    _joined: str | None = None

    @property
    def text(self) -> str:
        """All of it."""
        if self._joined is None:
            self._joined = super().text
        return self._joined

    def replace_range(self, start: Location, end: Location, text: str) -> EditResult:
        """Replace what is between two places."""
        self._joined = None
        return super().replace_range(start, end, text)


class PromptWrapping(WrappedDocument):
    """A document's rows at a width."""

    def wrap(self, width: int, tab_width: int | None = None) -> None:
        """Break all lines anew."""
        self._width, self._tab_width = width, tab_width or self._tab_width
        self._wrap_offsets, self._tab_width_cache = [], []
        self._replace(0, 0, self.document.lines)

    def wrap_range(self, start: Location, old_end: Location, new_end: Location) -> None:
        """Break again what an edit changed."""
        last = len(self._wrap_offsets) - 1
        top, bottom = (min(max(0, place[0]), last) for place in sorted((start, old_end)))
        new_bottom = max(start[0], new_end[0])
        lines = self.document.lines[top : new_bottom + 1]
        if top == bottom == new_bottom and "\t" not in lines[0] and self._width:
            first = min(start[1], old_end[1], new_end[1])
            edited = first, max(start[1], old_end[1]), max(start[1], new_end[1])
            self._edit_line(top, lines[0], *edited)
        else:
            self._replace(top, bottom + 1, lines)

    @property
    def height(self) -> int:
        """Rows of the whole."""
        return self._starts[-1]

    def get_sections(self, line_index: int) -> list[str]:
        """A line's rows."""
        line, offsets = self.document[line_index], self.get_offsets(line_index)
        return [line[start:end] for start, end in pairwise([0, *offsets, len(line)])]

    def section(self, line_index: int, number: int) -> tuple[int, str]:
        """One of a line's rows, and the column where it starts."""
        line, offsets = self.document[line_index], self.get_offsets(line_index)
        start = offsets[number - 1] if number else 0
        end = offsets[number] if number < len(offsets) else len(line)
        return start, line[start:end]

    def location_to_offset(self, location: Location) -> Offset:
        """The cell of a place, by row of the whole."""
        line, column = location
        number = bisect_right(self.get_offsets(line), column)
        start, text = self.section(line, number)
        before = text[: column - start]
        cells = cell_len(expand_tabs_inline(before, self._tab_width) if "\t" in before else before)
        return Offset(cells, self._starts[line] + number)

    def get_target_document_column(self, line_index: int, x_offset: int, y_offset: int) -> int:
        """The column of what is drawn at a cell of one of a line's rows: where its cluster starts."""
        rows = len(self.get_offsets(line_index)) + 1
        number = y_offset % rows
        start, text = self.section(line_index, number)
        if "\t" in text:
            return super().get_target_document_column(line_index, x_offset, y_offset)
        used = 0
        for begin, _, cells in graphemes.clusters(text):
            used += cells
            if used > x_offset:
                return start + begin
        return start + (len(text) if number == rows - 1 else graphemes.before(text, len(text)))

    # Inside.

    def _offsets(self, line: str) -> list[int]:
        if not self._width:
            return []
        if "\t" in line:
            return compute_wrap_offsets(line, self._width, self._tab_width)
        return list(breaks(line, 0, self._width))

    def _replace(self, top: int, bottom: int, lines: Sequence[str]) -> None:
        self._wrap_offsets[top:bottom] = [self._offsets(line) for line in lines]
        self._tab_width_cache[top:bottom] = [
            [width for _, width in get_tab_widths(line, self._tab_width)] if "\t" in line else []
            for line in lines
        ]
        self._number()

    def _edit_line(self, number: int, line: str, first: int, old: int, new: int) -> None:
        """Break a line again in which what was from `first` to `old` goes to `new` now."""
        offsets, moved = self._wrap_offsets[number], new - old
        kept = max(0, bisect_left(offsets, first) - 2)
        fresh = offsets[:kept]
        rest: list[int] = []
        for rows, at in enumerate(breaks(line, fresh[-1] if fresh else 0, self._width)):
            if at > new + 1:
                known = bisect_left(offsets, at - moved)
                same = known < len(offsets) and offsets[known] == at - moved
                if same or (rows > AHEAD and known and offsets[known - 1] + moved > fresh[-1]):
                    rest = [offset + moved for offset in offsets[known if same else known - 1 :]]
                    break
            fresh.append(at)
        self._wrap_offsets[number] = fresh + rest
        self._tab_width_cache[number] = []
        if len(fresh) + len(rest) != len(offsets):
            self._number()

    def _number(self) -> None:
        heights = [len(offsets) + 1 for offsets in self._wrap_offsets]
        self._starts = list(accumulate(heights, initial=0))
        self._offset_to_line_info = _Rows(self._starts)  # type: ignore[assignment]
        self._line_index_to_offsets = _Lines(self._starts)  # type: ignore[assignment]


class _Rows(Sequence[tuple[int, int]]):
    """By row of the whole: the line, and the row in it."""

    def __init__(self, starts: list[int]) -> None:
        self._starts = starts

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> tuple[int, int]:  # type: ignore[override]
        row = row + len(self) if row < 0 else row
        if not 0 <= row < len(self):
            raise IndexError(row)
        line = bisect_right(self._starts, row) - 1
        return line, row - self._starts[line]


class _Lines(Sequence[range]):
    """By line: its rows of the whole."""

    def __init__(self, starts: list[int]) -> None:
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, line: int) -> range:  # type: ignore[override]
        line = line + len(self) if line < 0 else line
        return range(self._starts[line], self._starts[line + 1])


class PromptNavigator(DocumentNavigator):
    """Left and right move by clusters."""

    def get_location_left(self, location: Location) -> Location:
        """The place before."""
        row, column = location
        if not column:
            return super().get_location_left(location)
        return row, graphemes.before(self._document[row], column)

    def get_location_right(self, location: Location) -> Location:
        """The place behind."""
        row, column = location
        if column >= len(self._document[row]):
            return super().get_location_right(location)
        return row, graphemes.after(self._document[row], column)


def breaks(line: str, start: int, width: int) -> Iterator[int]:
    """Offsets at which a line without tabs is broken from `start` on, where a row begins.

    A word goes with the spaces behind it, and is cut only where it has no room in a row of its own.
    """
    used = 0
    for chunk in _CHUNK.finditer(line, start):
        at, text = chunk.start(), chunk.group()
        cells = cell_len(text) if len(text) < LONG else LONG
        if used + cells <= width:
            used += cells
            continue
        if at > start:
            yield at
        if cells <= width:
            used = cells
            continue
        last = at
        for cut in _fold(text, width):
            last = at + cut
            yield last
        used = cell_len(line[last : chunk.end()])


def _fold(word: str, width: int) -> Iterator[int]:
    """Offsets that cut a word into rows of at most `width` cells."""
    used = 0
    for run in _RUN.finditer(word):
        cells = {"narrow": 1, "wide": 2}.get(run.lastgroup or "")
        if cells is None:
            for start, _, cells in graphemes.clusters(run.group()):
                if used and used + cells > width:
                    yield run.start() + start
                    used = 0
                used += cells
            continue
        at, end, room = run.start(), run.end(), (width - used) // cells
        while end - at > room:
            at, used, room = at + room, 0, max(1, width // cells)
            if at:
                yield at
        used += (end - at) * cells
