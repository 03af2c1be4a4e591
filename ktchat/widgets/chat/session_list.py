"""The session list: saved sessions by age, the open one marked, those just deleted struck through.

Opening, renaming and deleting are messages to the screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ktchat.widgets.formats import age, day
from ktchat.widgets.lines import ends, styled

if TYPE_CHECKING:
    from ktchat.store.records import SessionSummary


class SessionList(OptionList):
    """Sessions to open, rename and delete."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"age", "gone", "mark"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("delete", "delete", "Delete", show=False),
        Binding("u", "undo", "Undo", show=False),
        Binding("slash", "screen.search_all", "Search", show=False),
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]

    @dataclass
    class Opened(Message):
        """A session was chosen."""

        session: str

    @dataclass
    class Deleted(Message):
        """A session is to be deleted."""

        session: str

    class Undone(Message):
        """The session deleted last is to come back."""

    def __init__(self) -> None:
        super().__init__(markup=False, compact=True)
        self._sessions: list[SessionSummary] = []
        self._current = ""
        self._gone: dict[str, SessionSummary] = {}

    def show(self, sessions: Sequence[SessionSummary], current: str) -> None:
        """Show these sessions, and which one is open."""
        self._sessions, self._current = list(sessions), current
        self._fill()

    def show_current(self, current: str) -> None:
        """Another session is open."""
        if current != self._current:
            self._current = current
            self._fill()

    def mark_deleted(self, session: str) -> None:
        """Show a session as deleted; it can be brought back."""
        for summary in self._sessions:
            if summary.id == session:
                self._gone[session] = summary
        self._fill()

    def forget(self, session: str) -> None:
        """A deleted session is gone for good, or is back."""
        if self._gone.pop(session, None):
            self._fill()

    @property
    def chosen(self) -> SessionSummary | None:
        """The session under the cursor."""
        option = self.highlighted_option
        return next((s for s in self._listed() if option and s.id == option.id), None)

    def summary(self, session: str) -> SessionSummary | None:
        """What is known of a session."""
        return next((s for s in self._listed() if s.id == session), None)

    def _listed(self) -> list[SessionSummary]:
        ids = {summary.id for summary in self._sessions}
        extra = [summary for summary in self._gone.values() if summary.id not in ids]
        return sorted([*self._sessions, *extra], key=lambda s: s.updated, reverse=True)

    def _fill(self) -> None:
        option, row = self.highlighted_option, self.highlighted
        kept = option.id if option and self.has_focus else self._current
        at = self.scroll_y
        self.set_options(self._options_shown())
        ids = [o.id for o in self.options]
        if kept in ids:
            self.highlighted = ids.index(kept)
        elif self.has_focus and row is not None:
            sessions = [i for i, o in enumerate(self.options) if not o.disabled]
            self.highlighted = min(sessions, key=lambda i: abs(i - row), default=None)
        self.scroll_to(y=at, animate=False)

    def _options_shown(self) -> Iterator[Option]:
        group = ""
        for summary in self._listed():
            name = age(summary.updated)
            if name != group:
                yield Option(styled(f" {name}", ".age"), disabled=True)
                group = name
            yield Option(self._row(summary), id=summary.id)
        if not group:
            yield Option(styled(" no sessions yet", ".age"), disabled=True)

    def _row(self, summary: SessionSummary) -> Content:
        """The title in the width that there is, and the day."""
        if summary.id in self._gone:
            title = styled("  u undo  ", ".mark") + styled(summary.shown_title, ".gone")
        elif summary.id == self._current:
            title = styled("▌ ", ".mark") + styled(summary.shown_title, "bold")
        else:
            title = Content("  ") + Content(summary.shown_title)
        width = self.scrollable_content_region.width - 1
        return ends(title, styled(day(summary.updated), ".age"), width) if width > 12 else title

    def on_resize(self) -> None:
        self._fill()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter or a click opens a session; on a deleted one it brings it back."""
        event.stop()
        if event.option_id in self._gone:
            self.post_message(self.Undone())
        elif event.option_id:
            self.post_message(self.Opened(event.option_id))

    def action_delete(self) -> None:
        """Delete the session under the cursor."""
        chosen = self.chosen
        if chosen is not None and chosen.id not in self._gone:
            self.post_message(self.Deleted(chosen.id))

    def action_undo(self) -> None:
        """Bring back what was deleted last."""
        self.post_message(self.Undone())
