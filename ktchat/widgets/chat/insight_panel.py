"""The panel that shows how a reply is computed: beside the conversation, or over it where the screen is narrow."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from engine.common.insight import Insight
from ktchat.widgets.chat import insight_text
from ktchat.widgets.lines import styled, wrap

TITLE = "Inside the model"
CLOSES = "  F12 closes"


class InsightLines(Widget):
    """The lines of the panel; they are made anew when there is something else to say, or another size."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"dim", "strong", "heat"}

    def __init__(self) -> None:
        super().__init__()
        self.room = 0
        """Rows that are there for the lines."""
        self._said: Insight | str = insight_text.NOTHING
        self._made: dict[tuple[int, int], tuple[Content, int]] = {}
        """Content and its rows by width and room: a layout may ask for several."""

    def say(self, said: Insight | str) -> None:
        """Show this, or words in its place."""
        if said != self._said:
            width = self.content_size.width
            before = self._made.get((width, self.room))
            self._said = said
            self._made.clear()
            same = before is not None and self._lines(width)[1] == before[1]
            self.refresh(layout=not same)  # laying out the screen again costs the most

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._lines(width)[1]

    def render(self) -> Content:
        return self._lines(self.content_size.width)[0]

    def _lines(self, width: int) -> tuple[Content, int]:
        made = self._made.get((width, self.room))
        if made is None:
            made = self._made[width, self.room] = self._make(width)
        return made

    def _make(self, width: int) -> tuple[Content, int]:
        lines = [styled(TITLE, ".strong") + styled(CLOSES, ".dim"), Content("")]
        if isinstance(self._said, str):
            lines += [line.content for line in wrap(Content(self._said), width)]
        else:
            lines += insight_text.lines(self._said, width, self.room - len(lines))
        return Content("\n").join(lines), len(lines)


class InsightPanel(VerticalScroll):
    """Scrolls with the arrows, Page Up and Page Down where it has the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False),
        Binding("k", "scroll_up", "Up", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.display = False
        self.lines = InsightLines()

    def compose(self) -> ComposeResult:
        yield self.lines

    def on_resize(self, event: events.Resize) -> None:
        if event.size.height != self.lines.room:
            self.lines.room = event.size.height
            self.lines.refresh(layout=True)

    def say(self, said: Insight | str) -> None:
        """Show how a reply is computed, or words in its place."""
        self.lines.say(said)
