"""The dialogs of servers: an address, a name and a key; which of its models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import KtchatError
from engine.remote.address import parse
from engine.remote.http import is_key
from ktchat.library.servers import Server
from ktchat.screens.dialogs.dialogs import Dialog
from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field
from ktchat.widgets.lines import styled

_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]{0,99})")


@dataclass(frozen=True, slots=True)
class ServerForm:
    """What was typed. An empty `key` leaves the one that is kept."""

    server: Server
    key: str = ""

    def __repr__(self) -> str:
        return f"ServerForm({self.server!r})"


class ServerDialog(LeftOnce[ServerForm | None], ModalScreen[ServerForm | None]):
    """Ask for a server: its address, what to call it, its key, and its context where it does not say it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        # Before any field sees the key behind them: what is typed fast must not stand in the field before.
        Binding("tab,down", "app.focus_next", show=False, priority=True),
        Binding("shift+tab,up", "app.focus_previous", show=False, priority=True),
    ]

    def __init__(self, server: Server | None = None) -> None:
        """`server` is changed; None: another one."""
        super().__init__()
        self._server = server
        known = server or Server("")
        self.fields = {
            "address": Field(known.address, placeholder="http://host:8000/v1", compact=True),
            "name": Field(known.name, placeholder="as you call it", compact=True, max_length=40),
            "key": Field(
                f"${known.variable}" if known.variable else "",
                placeholder="kept as it is" if server else "none, or $NAME of a variable",
                password=not known.variable,
                compact=True,
            ),
            "context": Field(
                str(known.context or ""),
                placeholder="tokens, where the server does not say it",
                type="integer",
                compact=True,
                max_length=10,
            ),
        }

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            title = "A server of models" if self._server is None else "This server of models"
            yield Static(Content(title), classes="title")
            for name, field in self.fields.items():
                yield Static(styled(name, "$foreground 60%"))
                yield field
            yield Static(id="server-words", classes="hint")
            yield Static(Content("Enter keep and test · Tab next · Esc back"), classes="hint")

    def on_mount(self) -> None:
        self.fields["address"].focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """What was said of the old text is over; a variable's name is no secret."""
        self.query_one("#server-words", Static).update("")
        key = self.fields["key"]
        if event.input is key:
            key.password = not key.value.startswith("$")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep what was typed, if it can be kept."""
        values = {name: field.value.strip() for name, field in self.fields.items()}
        try:
            address = parse(values["address"]) if values["address"] else None
        except KtchatError as error:
            self._say("address", str(error))
            return
        key = values["key"]
        variable = _VARIABLE.fullmatch(key)
        if address is None:
            self._say("address", "type the address of a server")
        elif key and variable is None and not is_key(key):
            self._say("key", "that cannot be a key: it holds blanks, or characters that no key has")
        else:
            same = self._server is not None and self._server.address == address.base
            server = Server(
                address=address.base,
                name=values["name"],
                variable=variable[1] if variable else "",
                plain=bool(same and self._server and self._server.plain),
                context=min(int(values["context"] or 0), 1 << 30),
            )
            self.dismiss(ServerForm(server, "" if variable else key))

    def _say(self, name: str, words: str) -> None:
        self.query_one("#server-words", Static).update(styled(words, "$warning"))
        self.fields[name].focus()

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)


class ServedModelDialog(Dialog):
    """Which of a server's models. Answered with its name."""

    AUTO_FOCUS = "OptionList"

    def __init__(self, title: str, models: Sequence[tuple[str, str]]) -> None:
        """`models`: names, and what is shown for each, safe to draw."""
        super().__init__()
        self._title, self._models = title, models

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self._title), classes="title")
            yield OptionList(*(Option(Content(words)) for _, words in self._models), compact=True)
            yield Static(Content("Enter open · Esc back"), classes="hint")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """The answer."""
        self.dismiss(self._models[event.option_index][0])
