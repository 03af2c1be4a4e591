"""A message in the transcript: a header row and rows of text, drawn line by line.

Knows rows, selection, focus and clicks. Knows nothing of the session; what the person asks for
goes up as a message. One widget a message and no children: a transcript of hundreds stays light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from ktchat.widgets.lines import Line, copied, ends, styled

INDENT = 2
"""Cells by which text stands to the right of the header."""


class MessageView(Widget, can_focus=True):
    """Base of both kinds of message. Subclasses say `header_left`, `header_right` and `body`."""

    ALLOW_SELECT = True
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("author", "dim", "action", "note", "warning", "error"),
        *("heading-1", "heading-2", "strong", "em", "struck", "code", "link", "thinking"),
        *("code-block", "code-head", "code-copy", "code-comment", "code-keyword", "code-name"),
        *("code-string", "code-number", "code-deleted"),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "copy", "Copy", show=False),
        Binding("up,k", "walk(-1)", "Message above", show=False),
        Binding("down,j", "walk(1)", "Message below", show=False),
    ]

    @dataclass
    class Copy(Message):
        """Text to be copied, and what it is called."""

        text: str
        name: str

    @dataclass
    class OpenLink(Message):
        """A link that was clicked."""

        url: str

    @dataclass
    class Walk(Message):
        """Move the focus to the message above (-1) or below (1)."""

        view: MessageView
        step: int

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Line] = []
        self._width = 0
        self._strips: dict[int, Strip] = {}
        self._hovered = False

    # What subclasses say.

    def header(self) -> tuple[Content, Content]:
        """The two ends of the header row."""
        raise NotImplementedError

    def body(self, width: int) -> list[Line]:
        """The rows below the header."""
        raise NotImplementedError

    def copy_text(self) -> str:
        """What `copy` copies."""
        raise NotImplementedError

    @property
    def active(self) -> bool:
        """Whether the actions are shown: the pointer is here, or the focus."""
        return self._hovered or self.has_focus

    # Rows.

    def rows(self, width: int) -> list[Line]:
        """All rows at a width."""
        if width != self._width or not self._rows:
            self._width = width
            self._strips.clear()
            self._rows = [self._header_row(width), *self.body(max(4, width - INDENT))]
        return self._rows

    def changed(self, first_row: int = 0) -> None:
        """Draw again what changed, from a row on; lay out again if the height is another."""
        before = len(self._rows)
        self._rows = []
        if not self._width or not self.is_mounted:
            return
        kept = {y: strip for y, strip in self._strips.items() if 0 < y < first_row}
        rows = self.rows(self._width)
        self._strips = kept
        self.refresh(layout=len(rows) != before)

    def header_changed(self) -> None:
        """Draw the header row again."""
        if self._rows and self._width:
            self._rows[0] = self._header_row(self._width)
            self._strips.pop(0, None)
            self.refresh()

    def _header_row(self, width: int) -> Line:
        left, right = self.header()
        row = ends(left, right, width)
        return Line(row, gutter=len(row))

    # Widget.

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.rows(width))

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        rows = self.rows(width)
        if y >= len(rows):
            return Strip.blank(width, self.visual_style.rich_style)
        selection = self.text_selection
        if selection is None and y in self._strips:
            return self._strips[y]
        strip = self._strip(rows[y], y, width, selection)
        if selection is None:
            self._strips[y] = strip
        return strip

    def _strip(self, line: Line, y: int, width: int, selection: Selection | None) -> Strip:
        base = self.visual_style
        content = line.content
        span = selection.get_span(y) if selection is not None else None
        if span is not None:
            start, end = max(span[0], line.gutter), span[1] if span[1] >= 0 else len(content)
            mark = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(mark, start, max(start, end))
        margin = INDENT if y else 0
        segments = [Segment(" " * margin, base.rich_style)] if margin else []
        x = 0
        for text, style in content.render(base, end="", parse_style=self._get_style):
            segments.append(Segment(text, style.rich_style_with_offset(x, y)))
            x += len(text)
        fill = base + self._get_style(line.fill) if line.fill else base
        return Strip(segments).crop_extend(0, width, fill.rich_style)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        rows = self.rows(self._width)
        start, end = selection.start, selection.end
        text = copied(
            rows,
            start.y if start else 0,
            start.x if start else 0,
            end.y if end else len(rows) - 1,
            end.x if end else 1 << 30,
        )
        return text, "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self._strips.clear()
        self.refresh()

    # Events and actions.

    def on_enter(self, event: events.Enter) -> None:
        self._hovered = True
        self.header_changed()

    def on_leave(self, event: events.Leave) -> None:
        self._hovered = False
        self.header_changed()

    def on_focus(self) -> None:
        self.header_changed()

    def on_blur(self) -> None:
        self.header_changed()

    def action_copy(self) -> None:
        """Copy the whole message."""
        self.post_message(self.Copy(self.copy_text(), "message"))

    def action_open_link(self, url: str) -> None:
        """Ask what to do with a link."""
        self.post_message(self.OpenLink(url))

    def action_walk(self, step: int) -> None:
        """Move to a neighbour."""
        self.post_message(self.Walk(self, step))


def actions(*names: tuple[str, str]) -> Content:
    """Clickable words, each followed by two spaces: (word, action)."""
    parts = [styled(word, ".action", (action, ())) + Content("  ") for word, action in names]
    return Content("").join(parts)
