"""Plain text that grows, as rows of cells: a message as it was typed, the model's thinking.

Only the last line is broken again when text is added.
"""

from __future__ import annotations

from textual.content import Content

from ktchat.widgets.lines import Line, wrap


class PlainText:
    """Text in one style and its layout at one width."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self._style = style
        self._source = [""]  # its lines; the last one may grow
        self._rows: list[Line] = []  # of all lines but the last
        self._done = 0  # lines whose rows are in _rows
        self._width = 0
        self.append(text)

    def __bool__(self) -> bool:
        return len(self._source) > 1 or bool(self._source[0])

    @property
    def source(self) -> str:
        """The whole text."""
        return "\n".join(self._source)

    def append(self, fragment: str) -> None:
        """Add text at the end; newlines at the very beginning are left out."""
        if not self:
            fragment = fragment.lstrip("\n")
        first, *more = fragment.split("\n")
        self._source[-1] += first
        self._source.extend(more)

    def lines(self, width: int, limit: int = 0) -> list[Line]:
        """Rows of at most `width` cells, without empty ones at the end; with a `limit` the first
        ones, and one more when there are more."""
        if width != self._width:
            self._width, self._done, self._rows = width, 0, []
        last = len(self._source) - 1
        while self._done < last and not (limit and len(self._rows) > limit):
            self._rows.extend(self._wrapped(self._source[self._done], limit))
            self._done += 1
        rows = list(self._rows)
        if self._done == last:
            rows.extend(self._wrapped(self._source[last], limit))
        while rows and not rows[-1].content:
            rows.pop()
        return rows[: limit + 1] if limit else rows

    def _wrapped(self, text: str, limit: int) -> list[Line]:
        if limit:
            text = text[: (limit + 2) * self._width]
        content = Content(text).expand_tabs(4)
        return wrap(content.stylize(self._style) if self._style else content, self._width)
