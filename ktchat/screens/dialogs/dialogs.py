"""Small questions above the chat: a new title, what to do with a link, the keys.

Each is dismissed with its answer, or with None.
"""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ktchat.screens.chat.keys import KEYS
from ktchat.widgets.field import Field
from ktchat.widgets.lines import styled


class Dialog(ModalScreen[str | None]):
    """A box in the middle; Esc and a click beside it leave without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False)]

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)


class RenameDialog(Dialog):
    """Ask for a session's title."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content("Title of the session"), classes="title")
            yield Field(self._title, compact=True)
            yield Static(Content("Enter keep · Esc leave as it was"), classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer with what was typed."""
        self.dismiss(event.value.strip() or None)


class LinkDialog(Dialog):
    """Show where a link goes, whole, before anything is done with it."""

    AUTO_FOCUS = "OptionList"

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content("This link goes to"), classes="title")
            yield VerticalScroll(Static(Content(self._url)), classes="url")
            yield OptionList(
                Option(Content("Copy it"), id="copy"),
                Option(Content("Open it in the browser"), id="open"),
                Option(Content("Leave it"), id="leave"),
                compact=True,
            )

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the choice."""
        self.dismiss(event.option_id)


class HelpDialog(Dialog):
    """All keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f1,q", "leave", "Leave", show=False)]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content("Keys"), classes="title")
            with VerticalScroll(can_focus=True):
                yield Static(_key_table())
            yield Static(Content("Esc back"), classes="hint")


def _key_table() -> Content:
    width = max(len(key.shown) for key in KEYS) + 2
    rows = [styled(key.shown.ljust(width), "$accent") + Content(key.help) for key in KEYS]
    return Content("\n").join(rows)
