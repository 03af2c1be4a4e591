"""A message in the transcript: a header row and rows of text, drawn line by line.

It handles selection, focus and clicks; what the person asks for goes up as a message. One widget a
message and no children: a transcript of hundreds stays light.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from ktchat.widgets.chat.palette import Palette
from ktchat.widgets.chat.rows import RowPart, Rows
from ktchat.widgets.lines import Line, ends, styled

MARGIN = 1
"""Empty cells at both sides."""

INDENT = 2
"""Cells by which text stands to the right of the header."""

STRIPS = 600
"""Drawn rows that are kept: more than a screen has."""


class MessageView(Widget, can_focus=True):
    """Base of both kinds of message. Subclasses say `header_left`, `header_right` and `body`."""

    ALLOW_SELECT = True
    OWN_KEYS: ClassVar[tuple[str, ...]] = (*"cretjkgb", "space")
    """What is no typing; every other character goes to the prompt."""
    FOCUS_ON_CLICK = False  # who clicks into the text goes on typing into the prompt
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
    class Typed(Message):
        """A character that means nothing here: it is for the prompt."""

        text: str

    @dataclass
    class Walk(Message):
        """Move the focus to the message above (-1) or below (1)."""

        view: MessageView
        step: int

    @dataclass
    class Moved(Message):
        """Rows above what the reader sees turned out to be more than was guessed, or fewer."""

        rows: int

    def __init__(self) -> None:
        super().__init__()
        self._rows = Rows()
        self._width = 0
        self._strips: OrderedDict[int, tuple[Line, Strip]] = OrderedDict()
        self._hovered = False
        self.unread = False
        """It is drawn dim: the model reads it no more."""
        self._header = [Line(Content(""))]

    # What subclasses say.

    def header(self) -> tuple[Content, Content]:
        """The two ends of the header row."""
        raise NotImplementedError

    def body(self, width: int) -> Sequence[RowPart]:
        """What stands below the header: rows, and texts that are laid out where they are seen."""
        raise NotImplementedError

    def copy_text(self) -> str:
        """What `copy` copies."""
        raise NotImplementedError

    @property
    def active(self) -> bool:
        """Whether the actions are shown: the pointer is here, or the focus."""
        return self._hovered or self.has_focus

    # Rows.

    def rows(self, width: int) -> Rows:
        """All rows at a width."""
        if width != self._width or not self._rows:
            if width != self._width:
                self._strips.clear()
            self._width = width
            inner = max(4, width - 2 * MARGIN - INDENT)
            self._header_row(width)
            self._rows = Rows([self._header, *self.body(inner)], inner)
        return self._rows

    def mark_unread(self, unread: bool) -> None:
        """Draw it dim, or not."""
        if unread != self.unread:
            self.unread = unread
            self._strips.clear()
            self.refresh()

    def changed(self) -> None:
        """Draw again the rows that changed; lay out again if the height is another."""
        before, height, self._rows = len(self._rows), self.height, Rows()
        if not self._width or not self.is_mounted:
            return
        after = self.rows(self._width)
        drawn = self._strips.items()
        dirty = [y for y, (row, _) in drawn if y >= len(after) or after[y] is not row]
        for y in dirty:
            del self._strips[y]
        dirty += [*range(before, len(after)), *range(len(after), before)]
        if dirty:
            top, bottom = min(dirty), max(dirty)
            self.refresh(Region(0, top, self._width, bottom - top + 1))
        if self.height != height:
            self.refresh(repaint=False, layout=True)

    @property
    def height(self) -> int:
        """Rows that the widget takes; `rows` are at the top of them."""
        return len(self._rows)

    def header_changed(self) -> None:
        """Draw the header row again."""
        if self._rows and self._width:
            self._header_row(self._width)
            self._strips.pop(0, None)
            self.refresh(Region(0, 0, self._width, 1))

    def _header_row(self, width: int) -> None:
        left, right = self.header()
        row = ends(left, right, width - 2 * MARGIN)
        if self.has_focus:
            row = row.stylize_before(".focused")
        line = Line(row, gutter=len(row), fill=".focused" if self.has_focus else "")
        if line != self._header[0]:  # an equal row is the same row: nothing to draw
            self._header[0] = line

    # Widget.

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self.rows(width)
        return self.height

    def render_lines(self, crop: Region) -> list[Strip]:
        """The rows in `crop`. There is no border and no padding, so this is all there is to it."""
        if not self.is_attached:  # removed since the frame was laid out
            return [Strip.blank(crop.width)] * crop.height
        strips = [self.render_line(y) for y in crop.line_range]
        if self._rows.unsettled:
            self.call_later(self._settle_rows)
        for line_filter in self.get_line_filters():
            background = self.background_colors[1]
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.column_span != (0, self.size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        rows = self.rows(width)
        if y >= len(rows):
            return Strip.blank(width, self.visual_style.rich_style)
        row, selection = rows[y], self.text_selection
        if selection is not None:
            return self._strip(row, y, width, selection)
        if y not in self._strips or self._strips[y][0] is not row:
            self._strips[y] = row, self._strip(row, y, width, None)
        self._strips.move_to_end(y)
        if len(self._strips) > STRIPS:
            self._strips.popitem(last=False)
        return self._strips[y][1]

    def _settle_rows(self) -> None:
        """A height was guessed wrong, and nothing was left to make up for it."""
        if self._rows.unsettled:
            moved, self._rows = self._rows.settle(), Rows()
            self._strips.clear()
            self.refresh(layout=True)
            self.post_message(self.Moved(moved))

    def _strip(self, line: Line, y: int, width: int, selection: Selection | None) -> Strip:
        base = self.visual_style
        content = line.content
        span = selection.get_span(y) if selection is not None else None
        if span is not None:
            start, end = max(span[0], line.gutter), span[1] if span[1] >= 0 else len(content)
            mark = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(mark, start, max(start, end))
        segments = [Segment(" " * (MARGIN + INDENT if y else MARGIN), base.rich_style)]
        x = 0
        for text, style in content.render(base, end="", parse_style=self._style):
            segments.append(Segment(text, style.rich_style_with_offset(x, y)))
            x += len(text)
        fill = base + self._style(line.fill) if line.fill else base
        strip = Strip(segments).crop_extend(0, width - MARGIN, fill.rich_style)
        strip = strip.extend_cell_length(width, base.rich_style)
        if not self.unread:
            return strip
        grey = (base + self._style(".unread")).rich_style  # one colour, not a share of each
        dim = RichStyle(color=grey.color, bold=False, dim=grey.dim)
        return Strip([*Segment.apply_style(strip, post_style=dim)])

    def _style(self, style: str | Style) -> Style:
        """The meaning of a component class of the palette, written `.code`."""
        if isinstance(style, Style):
            return style
        return self.query_ancestor(Palette).style_of(style.removeprefix("."))

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        rows = self.rows(self._width)
        start, end = selection.start, selection.end
        first = (start.y, start.x) if start else (0, 0)
        last = (end.y, end.x) if end else (len(rows) - 1, 1 << 30)
        return rows.text(*first, *last), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self._strips.clear()
        self.refresh()

    # Events and actions.

    def on_key(self, event: events.Key) -> None:
        """Hand what is typed on to the prompt."""
        if event.character and event.is_printable and event.key not in self.OWN_KEYS:
            event.stop()
            self.post_message(self.Typed(event.character))

    def on_enter(self, event: events.Enter) -> None:
        self._hovered = True
        self.header_changed()

    def on_leave(self, event: events.Leave) -> None:
        self._hovered = False
        self.header_changed()

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
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
