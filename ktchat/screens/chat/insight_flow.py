"""Seeing how replies are computed: the panel of F12, and what is kept for it of each session's last reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktchat.widgets.chat.insight_panel import InsightPanel
from ktchat.widgets.chat.insight_text import FORGOTTEN, NOTHING
from ktchat.widgets.chat.turn_view import TurnView

if TYPE_CHECKING:
    from engine.protocol import Insight
    from ktchat.screens.chat.frame import Frame
    from ktchat.session.chat import ChatSession

LEAST_CHAT, LEAST_PANEL, MOST_PANEL = 46, 38, 72
"""Columns that stay for the conversation beside the panel, and columns of the panel."""


class InsightFlow:
    """Opens and closes the panel, and fills it."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._kept: dict[str, tuple[str, Insight]] = {}
        """Of each session its last reply's turn, and how that was computed."""
        self._from: TurnView | None = None
        """What had the focus when the panel covered it."""

    @property
    def panel(self) -> InsightPanel:
        """The widget."""
        return self._frame.insight_panel

    @property
    def covers(self) -> bool:
        """Whether the panel is shown above the conversation, which has no room beside it."""
        return self.panel.display and self._width() is None

    def toggle(self) -> None:
        """Open the panel, or close it."""
        self._show(not self.panel.display)

    def close(self, only_cover: bool = False) -> bool:
        """Take the panel away, or only where it lies above the conversation; whether it did."""
        if not self.panel.display or (only_cover and not self.covers):
            return False
        self._show(False)
        return True

    def place(self) -> None:
        """Fit the panel to the window: beside the conversation, or above it."""
        panel, width = self.panel, self._width()
        panel.set_class(width is None, "-over")
        panel.styles.width = "100%" if width is None else width
        panel.can_focus = panel.display

    def take(self, chat: ChatSession, insight: Insight) -> None:
        """The engine says how the reply of the open session is computed."""
        last = chat.conversation.last
        if last is not None:
            self._kept[chat.conversation.id] = last.id, insight
            self.show()

    def show(self) -> None:
        """Show what is known of the turn that has the focus, else of the last one."""
        if not self.panel.display:
            return
        chat, focused = self._frame.chat, self._frame.focused
        if focused is self.panel:
            focused = self._from
        last = chat.conversation.last if chat is not None else None
        turn = focused.turn if isinstance(focused, TurnView) else last
        kept = self._kept.get(chat.conversation.id) if chat is not None else None
        if turn is None or chat is None:
            self.panel.say(NOTHING)
        elif kept is not None and kept[0] == turn.id:
            self.panel.say(kept[1])
        elif turn is last and chat.busy:
            self.panel.say(NOTHING)
        else:
            self.panel.say(FORGOTTEN if turn.figures is not None else NOTHING)

    def _show(self, shown: bool) -> None:
        frame, panel = self._frame, self.panel
        if shown:
            self._from = frame.focused if isinstance(frame.focused, TurnView) else None
        had_focus = frame.focused is panel
        panel.display = shown
        self.place()
        if frame.chat is not None:
            frame.chat.observe(shown)
        self.show()
        if self.covers:
            panel.focus()
        elif had_focus:
            back = self._from
            (back if back is not None and back.is_mounted else frame.prompt).focus()
        frame.refresh_status()

    def _width(self) -> int | None:
        """Columns of the panel beside the conversation; None: there is no room for it."""
        frame = self._frame
        beside = frame.session_list.display and frame.is_wide
        left = frame.app.size.width - (_list_width(frame.app.size.width) if beside else 0)
        width = min(MOST_PANEL, max(LEAST_PANEL, left * 2 // 5), left - LEAST_CHAT)
        return width if width >= LEAST_PANEL else None


def _list_width(columns: int) -> int:
    """As the style sheet has it."""
    return min(48, max(30, columns * 28 // 100))
