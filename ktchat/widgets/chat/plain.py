"""Plain text that grows, as rows of cells: a message as it was typed, the model's thinking."""

from __future__ import annotations

from dataclasses import replace

from textual.content import Content

from ktchat.widgets.chat.cutting import Opening, cut_plain
from ktchat.widgets.chat.long_text import LongText
from ktchat.widgets.lines import Line, indent, wrap


class PlainText(LongText):
    """Text in one style and its layout at one width; `bar` stands before each row."""

    def __init__(self, text: str = "", style: str = "", bar: Content | None = None) -> None:
        super().__init__()
        self._style, self._bar = style, bar
        self.append(text)

    def append(self, fragment: str) -> None:
        """Add text at the end; newlines at the very beginning are left out."""
        super().append(fragment if self else fragment.lstrip("\n"))

    def beginning(self, width: int, limit: int) -> list[Line]:
        """The first rows, and one more where there are more than `limit`."""
        rows: list[Line] = []
        for line in self.source[: (limit + 2) * width].split("\n"):
            if len(rows) > limit:
                break
            rows.extend(self._wrapped(line, width))
        while rows and not rows[-1].content:
            rows.pop()
        return rows[: limit + 1]

    # Pieces.

    def cut(self, text: str, opening: Opening) -> tuple[int, Opening] | None:
        return cut_plain(text)

    def render(self, number: int, width: int) -> list[Line]:
        piece = self._pieces[number]
        last = number == len(self._pieces) - 1
        text = piece.text.rstrip() if last else piece.text.removesuffix("\n")
        if last and not text:
            return []
        rows = [row for line in text.split("\n") for row in self._wrapped(line, width)]
        if rows and piece.opening.joint != "\n":
            rows[0] = replace(rows[0], joint=piece.opening.joint)
        return rows

    def _wrapped(self, text: str, width: int) -> list[Line]:
        content = Content(text).expand_tabs(4)
        if self._style:
            content = content.stylize(self._style)
        room = width - self._bar.cell_length if self._bar else width
        rows = wrap(content, room)
        return indent(rows, self._bar, self._bar) if self._bar else rows
