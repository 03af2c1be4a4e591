"""The frame of the chat screen: which parts there are and where they stand.

Knows widgets and the size of the window. Knows nothing of what they are about.
"""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from ktchat.common.settings import SettingsFile
from ktchat.screens.chat import keys
from ktchat.widgets.bars import Header, KeyBar, Status
from ktchat.widgets.chat.prompt import Prompt
from ktchat.widgets.chat.session_list import SessionList
from ktchat.widgets.chat.transcript import Transcript
from ktchat.widgets.chat.welcome import Welcome
from ktchat.widgets.small import TooSmall

WIDE = 100
"""Columns from which the session list stands beside the conversation."""

LEAST = (36, 9)
"""Columns and rows below which only a line says that the window is too small."""


class Row(Horizontal):
    """Side by side, with nothing of its own to draw."""

    BLANK = True


class Column(Vertical):
    """One below the other, with nothing of its own to draw."""

    BLANK = True


class Frame(Screen[None]):
    """Header, sessions, conversation, prompt and keys."""

    AUTO_FOCUS = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+end", "to_end", "To the end", show=False),
        Binding("ctrl+home", "to_start", "To the start", show=False),
        Binding("ctrl+up", "scroll_by(-3)", "Scroll up", show=False),
        Binding("ctrl+down", "scroll_by(3)", "Scroll down", show=False),
    ]

    def __init__(self, settings: SettingsFile) -> None:
        super().__init__()
        self.settings = settings
        self.header = Header()
        self.session_list = SessionList()
        self.transcript = Transcript()
        self.welcome = Welcome()
        self.status = Status()
        self.prompt = Prompt("Ask anything")
        self.key_bar = KeyBar(keys.IDLE)
        self._overlay = False  # the list is shown above the conversation, on a narrow screen

    def compose(self) -> ComposeResult:
        yield self.header
        with Row(id="main"):
            yield self.session_list
            with Column(id="chat"):
                yield self.welcome
                yield self.transcript
                with Column(id="foot"):
                    yield self.status
                    yield self.prompt
        yield self.key_bar
        yield TooSmall()

    def on_mount(self) -> None:
        self.transcript.display = False
        self.place_parts()

    def on_resize(self, event: events.Resize) -> None:
        self.place_parts()

    def on_prompt_page(self, message: Prompt.Page) -> None:
        step = max(1, self.transcript.size.height - 2)
        self.transcript.scroll_relative(y=message.direction * step, animate=False)

    def action_to_end(self) -> None:
        """Go to the end of the conversation and stay there."""
        self.transcript.to_end()

    def action_to_start(self) -> None:
        """Go to the start of what is on the screen."""
        self.transcript.scroll_home(animate=False)

    def action_scroll_by(self, rows: int) -> None:
        """Scroll the conversation."""
        self.transcript.scroll_relative(y=rows, animate=False)

    def hide_overlay(self) -> None:
        """Take the session list away where it lies above the conversation."""
        if self._overlay:
            self.place_parts(overlay=False)

    @property
    def is_wide(self) -> bool:
        """Whether the session list stands beside the conversation."""
        return self.app.size.width >= WIDE

    def place_parts(self, overlay: bool | None = None) -> None:
        """Fit the parts to the size of the window; with `overlay`, show or hide the session list
        above the conversation where it has no place beside it."""
        width, height = self.app.size
        small = width < LEAST[0] or height < LEAST[1]
        if small != self.has_class("-small"):
            self.set_class(small, "-small")
            if not small:
                self.call_after_refresh(self.prompt.focus)
        self.set_class(not self.is_wide, "-narrow")
        self._overlay = not self.is_wide and (self._overlay if overlay is None else overlay)
        shown = self.settings.settings.session_list if self.is_wide else self._overlay
        self.session_list.display = shown
