"""Markdown as rows of cells, for text that grows while it is shown and may be of any length.

A document is cut into pieces (`cutting`) of which those are laid out that are seen (`long_text`). Within the piece that
grows, appending parses and lays out the last block again and nothing before it, so that the cost of a word does not
grow with the reply. What a block looks like is in `blocks`.
"""

from __future__ import annotations

import re
from typing import cast

from ktchat.widgets.chat.blocks import Code
from ktchat.widgets.chat.cutting import Opening, cut_markdown
from ktchat.widgets.chat.long_text import LongText, Piece
from ktchat.widgets.chat.rules import parser
from ktchat.widgets.chat.section import Section
from ktchat.widgets.lines import Line

CODES = 10_000
"""Numbers of code blocks that each piece has for its own."""

MAX_TARGETS = 500
"""Links' targets, given by name somewhere in a text, that hold in all of it."""

_TARGET = re.compile(r"^[ ]{0,3}\[[^\]\n]{1,100}\]:[ ]*\S[^\n]*$", re.MULTILINE)


class Document(LongText):
    """Markdown source and its layout at one width."""

    def __init__(self, source: str = "") -> None:
        super().__init__()
        self._targets: dict[str, object] = {}
        self._take_targets(source)
        self.append(source)

    @property
    def codes(self) -> list[Code]:
        """The code blocks, in order. Parses the whole text."""
        return [self.code(number) for number in self._numbers(range(self.pieces))]

    @property
    def last_code(self) -> Code | None:
        """The last code block."""
        for piece in reversed(range(self.pieces)):
            if numbers := self._numbers(range(piece, piece + 1)):
                return self.code(numbers[-1])
        return None

    def code(self, number: int) -> Code:
        """A code block by the number that its `copy` has; raises IndexError."""
        at, inside = divmod(number, CODES)
        codes = self._section(at).codes
        code = codes[inside]
        text, goes_on = [code.text], inside == len(codes) - 1
        for later in range(at + 1, self.pieces if goes_on else 0):
            opening = self._pieces[later].opening
            if opening.kind != "code":
                break
            section = self._section(later)
            text += [opening.joint, section.codes[0].text]
            if section.blocks > 1:
                break
        return Code("".join(text), code.language)

    def finish(self) -> None:
        """Parse once more if a link's target, given late, may concern a line above."""
        before = dict(self._targets)
        self._take_targets(self.source)
        if self._targets != before:
            self._rows.clear()
            for piece in self._pieces:
                piece.state, piece.exact = None, False
            self._width = 0

    # Pieces.

    def cut(self, text: str, opening: Opening) -> tuple[int, Opening] | None:
        return cut_markdown(text, opening)

    def render(self, number: int, width: int) -> list[Line]:
        piece = self._pieces[number]
        natural = self._columns(number) if piece.opening.kind == "table" else None
        return self._section(number).lines(width, natural)

    def grown(self, piece: Piece, fragment: str) -> None:
        if piece.state is not None:
            cast(Section, piece.state).append(fragment)

    def _section(self, number: int) -> Section:
        piece = self._pieces[number]
        if piece.state is None:
            heading = number > 0 and _ends_with_heading(self._pieces[number - 1].text)
            begins = number > 0 and piece.opening.kind == "block" and not heading
            piece.state = Section(
                piece.text, piece.opening, parser(), self._targets, number * CODES, gap=begins
            )
        return cast(Section, piece.state)

    def _columns(self, number: int) -> list[int] | None:
        """The columns of a table that was cut, as wide as in the piece where it begins."""
        while self._pieces[number].opening.kind == "table" and number > 0:
            number -= 1
        return self._section(number).last_columns

    def _numbers(self, pieces: range) -> list[int]:
        """Numbers of the code blocks that begin in these pieces."""
        return [
            at * CODES + inside
            for at in pieces
            for inside in range(len(self._section(at).codes))
            if inside or self._pieces[at].opening.kind != "code"
        ]

    def _take_targets(self, source: str) -> None:
        if "]:" not in source:
            return
        lines = [match.group() for match in _TARGET.finditer(source)][:MAX_TARGETS]
        found: dict[str, dict[str, object]] = {}
        parser().parse("\n\n".join(lines), found)
        self._targets = dict(found.get("references", {}))


def _ends_with_heading(text: str) -> bool:
    return text.rstrip().rpartition("\n")[2].lstrip(" ").startswith("#")
