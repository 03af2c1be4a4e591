"""The rows of a message: what stands in lists, and texts that are laid out where they are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from ktchat.widgets.chat.long_text import LongText
from ktchat.widgets.lines import Line, copied

RowPart = list[Line] | LongText

MANY = 5_000
"""Rows up to which a copy is what the screen shows; of more, texts that were not looked at are copied as their source."""


class Rows(Sequence[Line]):
    """Parts one below the other, at a width that they all have by now."""

    def __init__(self, parts: Sequence[RowPart] = (), width: int = 0) -> None:
        self._parts: list[tuple[int, int, RowPart]] = []  # first row, rows
        self._length = 0
        for part in parts:
            rows = part.height(width) if isinstance(part, LongText) else len(part)
            self._parts.append((self._length, rows, part))
            self._length += rows

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> Line: ...
    @overload
    def __getitem__(self, at: slice) -> list[Line]: ...
    def __getitem__(self, at: int | slice) -> Line | list[Line]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(self._length))]
        row = at + self._length if at < 0 else at
        for start, rows, part in self._parts:
            if start <= row < start + rows:
                return part.row(row - start) if isinstance(part, LongText) else part[row - start]
        raise IndexError(at)

    def __iter__(self) -> Iterator[Line]:
        return (self[row] for row in range(self._length))

    def text(self, start: int, start_x: int, end: int, end_x: int) -> str:
        """What a copy from a character of one row to a character of another has."""
        if end - start <= MANY:
            return copied(self, start, start_x, end, end_x)
        texts = []
        for first, rows, part in self._parts:
            low, high = max(0, start - first), min(end - first, rows - 1)
            if low <= high:
                if isinstance(part, LongText):
                    texts.append(part.source_of(low, high))
                else:
                    texts.append(copied(part, low, 0, high, 1 << 30))
        return "\n".join(texts)

    def settle(self) -> int:
        """Give what could not be guessed its height; by how many rows what is below moves."""
        texts = [part for _, _, part in self._parts if isinstance(part, LongText)]
        return sum(text.settle() for text in texts if text.unsettled is not None)

    @property
    def unsettled(self) -> bool:
        """Whether some rows are not where they belong, because nothing was left to guess."""
        texts = (part for _, _, part in self._parts if isinstance(part, LongText))
        return any(text.unsettled is not None for text in texts)
