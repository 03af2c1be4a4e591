"""A text that is laid out where it is seen: pieces of some thousand characters, each a list of rows once it is looked at.

The height of a piece that nobody has seen is a guess. When it is laid out the difference is taken from, or given to,
the nearest piece that is still a guess, on the side away from the reader: what is on the screen keeps its place and
the whole its height. Pieces that were not seen for long give their rows back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from ktchat.widgets.chat.cutting import LIMIT, Opening
from ktchat.widgets.lines import BLANK, Line

KEPT = 64
"""Pieces whose rows are kept."""

MOST = 300_000
"""Rows that are guessed of a whole text: a widget's place costs the screen by its height."""

FEW = 4
"""Pieces that are laid out at once when a shown text has grown by them."""


@dataclass(slots=True, eq=False)
class Piece:
    """A stretch of the source, what it goes on with, and the rows that it takes (a guess until `exact`)."""

    text: str
    opening: Opening
    height: int = 0
    exact: bool = False
    state: object = field(default=None, repr=False)
    """What its kind of text knows of it."""


class LongText:
    """Text in pieces and its layout at one width. Kinds of text say `cut`, `render`."""

    def __init__(self) -> None:
        self._pieces = [Piece("", Opening())]
        self._source: str | None = ""
        self._width = 0
        self._starts: list[int] = []  # first row of each piece, and of what is behind the last
        self._rows: OrderedDict[int, list[Line]] = OrderedDict()  # by piece, the last used last
        self._stale: int | None = None  # the first piece that has grown since the last `height`
        self._seen = 0  # the piece that was asked for last
        self._upwards = True  # the reader is below the unsettled piece
        self.unsettled: int | None = None
        """A piece whose height is not what it takes, and no guess is left to make up for it."""

    # Kinds of text.

    def cut(self, text: str, opening: Opening) -> tuple[int, Opening] | None:
        """Where the first piece of a text ends and what the next goes on with; None: it is one piece so far."""
        raise NotImplementedError

    def render(self, number: int, width: int) -> list[Line]:
        """The rows of a piece. The list may be kept by both sides and is never changed."""
        raise NotImplementedError

    def grown(self, piece: Piece, fragment: str) -> None:
        """The last piece has grown by a fragment."""

    # The source.

    @property
    def source(self) -> str:
        """The whole text."""
        if self._source is None:
            self._source = "".join(piece.text for piece in self._pieces)
        return self._source

    def __bool__(self) -> bool:
        return bool(self._pieces[0].text)

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return len(self._pieces)

    @property
    def laid_out(self) -> int:
        """How many of them have their rows at hand."""
        return len(self._rows)

    def append(self, fragment: str) -> None:
        """Add text at the end."""
        if not fragment:
            return
        self._source = None
        number, last = len(self._pieces) - 1, self._pieces[-1]
        last.text += fragment
        self._rows.pop(number, None)
        if not self._divide():
            self.grown(last, fragment)
        self._stale = number if self._stale is None else min(self._stale, number)

    def _divide(self) -> bool:
        """Cut what is at the end into pieces."""
        first = len(self._pieces) - 1
        text, at, opening = self._pieces[first].text, 0, self._pieces[first].opening
        pieces: list[Piece] = []
        while (found := self.cut(text[at : at + LIMIT], opening)) is not None:
            pieces.append(Piece(text[at : at + found[0]], opening))
            at, opening = at + found[0], found[1]
        if not pieces:
            return False
        self._pieces[first:] = [*pieces, Piece(text[at:], opening)]
        return True

    # Rows.

    def height(self, width: int) -> int:
        """Rows at a width: those of the pieces that were seen, and a guess for the others."""
        if width != self._width:
            self._width = width
            self._rows.clear()
            for piece in self._pieces:
                piece.exact = False
            self._guess(0)
        elif self._stale is not None:
            if self._stale >= len(self._pieces) - 1 - FEW:  # what has just grown was on the screen
                for number in range(self._stale, len(self._pieces)):
                    self._pieces[number].height = len(self._laid(number))
                    self._pieces[number].exact = True
            self._guess(self._stale)
        self._stale = None
        return self._starts[-1]

    def row(self, number: int) -> Line:
        """A row, at the width of the last `height`."""
        at = self._find(number)
        while not self._pieces[at].exact and self.unsettled != at:
            self._fit(at)
            at = self._find(number)
        self._seen = at
        rows = self._laid(at)
        inside = number - self._starts[at]
        if self.unsettled == at and self._upwards:  # its end is in its place
            inside += len(rows) - self._pieces[at].height
        return rows[inside] if 0 <= inside < len(rows) else BLANK

    def settle(self) -> int:
        """Give the unsettled piece its height; by how many rows what the reader sees moves."""
        at, self.unsettled = self.unsettled, None
        if at is None or at >= len(self._pieces):
            return 0
        before = self._pieces[at].height
        self._pieces[at].height = len(self._laid(at))
        self._pieces[at].exact = True
        self._measure(at)
        return self._pieces[at].height - before if self._upwards else 0

    def source_of(self, start: int, stop: int) -> str:
        """The source of all pieces that are within some rows, whole pieces."""
        first, last = self._find(start), self._find(stop)
        return "".join(piece.text for piece in self._pieces[first : last + 1])

    def lines(self, width: int) -> list[Line]:
        """Every row, all of them laid out. For texts that are known to be short, and for copies."""
        self.height(width)
        for number, piece in enumerate(self._pieces):
            if not piece.exact:
                piece.height, piece.exact = len(self._laid(number)), True
        self.unsettled = None
        self._measure(0)
        return list(self.iterate(0, self._starts[-1]))

    def iterate(self, start: int, stop: int) -> Iterator[Line]:
        """Rows from one number to another."""
        for number in range(start, min(stop, self._starts[-1])):
            yield self.row(number)

    # Inside.

    def _find(self, row: int) -> int:
        return max(0, min(bisect_right(self._starts, row) - 1, len(self._pieces) - 1))

    def _laid(self, number: int) -> list[Line]:
        rows = self._rows.get(number)
        if rows is None:
            rows = self._rows[number] = self.render(number, self._width)
            while len(self._rows) > KEPT:
                self._rows.popitem(last=False)
        else:
            self._rows.move_to_end(number)
        return rows

    def _guess(self, first: int) -> None:
        """Heights of the pieces from a number on; the last one's is exact."""
        for piece in self._pieces[first:-1]:
            if not piece.exact:
                text = piece.text
                cells = len(text) if text.isascii() else (len(text) + len(text.encode())) // 2
                piece.height = max(1, text.count("\n") + cells // (self._width + 1))
        rows = sum(piece.height for piece in self._pieces)
        if rows > MOST:
            for piece in self._pieces[first:-1]:
                if not piece.exact:
                    piece.height = max(1, piece.height * MOST // rows)
        self._measure(first)

    def _measure(self, first: int) -> None:
        """Where pieces begin, from a number on. The last piece is always laid out: it grows."""
        last = len(self._pieces) - 1
        if first <= last:
            self._pieces[last].height = len(self._laid(last))
            self._pieces[last].exact = True
        start = self._starts[first] if first and first < len(self._starts) else 0
        first = first if start or not first else 0
        heights = [piece.height for piece in self._pieces[first:]]
        self._starts[first:] = accumulate(heights, initial=start)

    def _fit(self, number: int) -> None:
        """Lay out a piece; a guess on the side away from the reader makes up for the difference."""
        piece = self._pieces[number]
        spare = piece.height - len(self._laid(number))
        upwards = self._seen > number
        below = range(number + 1, len(self._pieces))
        above = range(number - 1, -1, -1)
        # Where the reader came from above or below, what is there stays; a leap may move either side.
        leapt = self._seen == number or abs(self._seen - number) > FEW
        both = [above, below] if upwards else [below, above]
        sides = both if leapt else both[:1]
        changed = number
        for side in sides:
            for other in side:
                guess = self._pieces[other]
                if not spare:
                    break
                if not guess.exact:
                    taken = max(spare, 1 - guess.height)
                    guess.height += taken
                    spare -= taken
                    changed = min(changed, other)
        piece.height = len(self._laid(number)) + spare
        piece.exact = not spare
        if spare:
            self.unsettled, self._upwards = number, upwards
        self._measure(changed)
