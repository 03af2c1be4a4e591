"""Small dialogs: a new title, what to do with a link, yes or no, details, the keys.

Each is dismissed with its answer, or with None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ktchat.common.text import one_line
from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field
from ktchat.widgets.lines import indent, styled, wrap


class Dialog(LeftOnce[str | None], ModalScreen[str | None]):
    """A box in the middle; Esc and a click beside it leave without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False)]

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)


class RenameDialog(Dialog):
    """Ask for the title of a session, or another name."""

    def __init__(self, title: str, heading: str = "Title of the session") -> None:
        super().__init__()
        self._title, self._heading = title, heading

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self._heading), classes="title")
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
    """Keys and what each does."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f1,q", "leave", "Leave", show=False)]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content("Keys"), classes="title")
            with VerticalScroll(can_focus=True):
                yield Static(self._table())
            yield Static(Content("Esc back"), classes="hint")

    def _table(self) -> Content:
        width = max(len(key) for key, _ in self._keys) + 2
        rows = [styled(key.ljust(width), "$accent") + Content(words) for key, words in self._keys]
        return Content("\n").join(rows)


class Question(Dialog):
    """Ask before something is done. Answered with `yes`, or with None."""

    AUTO_FOCUS = "OptionList"

    def __init__(self, question: str, yes: str, no: str = "Leave it") -> None:
        super().__init__()
        self._question, self._yes, self._no = one_line(question, 600), yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self._question), classes="title")
            yield OptionList(
                Option(Content(self._no), id="no"), Option(Content(self._yes), id="yes"),
                compact=True,
            )  # fmt: skip
            yield Static(Content("Enter answer · Esc back"), classes="hint")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """The answer."""
        self.dismiss("yes" if event.option_id == "yes" else None)


class Details(Dialog):
    """Everything about one model, to read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("i,q", "leave", "Leave", show=False)]

    def __init__(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._rows = one_line(title, 100), rows

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content(self._title), classes="title")
            with VerticalScroll(can_focus=True):
                yield NamedTexts(self._rows)
            yield Static(Content("Esc back"), classes="hint")


class NamedTexts(Widget):
    """Names at the left, texts at the right, wrapped beside them."""

    DEFAULT_CSS = "NamedTexts { height: auto; width: 1fr; }"

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._rows = rows

    def render(self) -> Content:
        lead = max((len(name) for name, _ in self._rows), default=0) + 2
        width = max(20, self.content_size.width - lead)
        lines = [
            line.content
            for name, text in self._rows
            for line in indent(
                wrap(Content(one_line(text, 1000)), width),
                styled(name.ljust(lead), "$foreground 70%"),
            )
        ]
        return Content("\n").join(lines)
