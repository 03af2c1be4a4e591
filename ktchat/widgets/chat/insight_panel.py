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
        self._made: tuple[Insight | str, int, int] | None = None
        self._content = Content("")
        self._rows = 1

    def say(self, said: Insight | str) -> None:
        """Show this, or words in its place."""
        if said != self._said:
            self._said = said
            self.refresh(layout=self.is_mounted)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._make(width)
        return self._rows

    def render(self) -> Content:
        self._make(self.content_size.width)
        return self._content

    def _make(self, width: int) -> None:
        if self._made == (self._said, width, self.room):
            return
        self._made = self._said, width, self.room
        lines = [styled(TITLE, ".strong") + styled(CLOSES, ".dim"), Content("")]
        if isinstance(self._said, str):
            lines += [line.content for line in wrap(Content(self._said), width)]
        else:
            lines += insight_text.lines(self._said, width, self.room - len(lines))
        self._content, self._rows = Content("\n").join(lines), len(lines)


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
        self.lines.room = event.size.height
        self.lines.refresh(layout=True)

    def say(self, said: Insight | str) -> None:
        """Show how a reply is computed, or words in its place."""
        self.lines.say(said)
