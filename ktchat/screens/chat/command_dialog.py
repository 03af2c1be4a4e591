"""All commands, one a row with its key: the usual ones first, then those used most; typing finds them by a few of their characters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from textual import events
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.fuzzy import Matcher
from textual.screen import ModalScreen
from textual.style import Style
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ktchat.common import usage
from ktchat.screens.chat.keys import KEYS
from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field
from ktchat.widgets.lines import ends, styled

USUAL = (
    *("New session", "Sessions", "Search", "Models", "Settings", "Regenerate", "Edit"),
    *("Copy reply", "Copy code", "Theme", "Keys", "Quit"),
)
"""What stands first, in this order."""

SHOWN = {key.name[:1].upper() + key.name[1:]: key.shown for key in KEYS if key.action}
"""The keys of commands, as they are printed."""

HELP_SCORE = 0.25
"""What a hit in the words behind a command counts, of one in its name."""


class CommandDialog(LeftOnce["SystemCommand | None"], ModalScreen["SystemCommand | None"]):
    """Dismissed with the command that was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+p", "leave", "Leave", show=False, priority=True),
        Binding("down", "move(1)", "Next", show=False, priority=True),
        Binding("up", "move(-1)", "Before", show=False, priority=True),
        Binding("pagedown", "move(8)", "Page down", show=False, priority=True),
        Binding("pageup", "move(-8)", "Page up", show=False, priority=True),
    ]

    def __init__(self, commands: Iterable[SystemCommand]) -> None:
        super().__init__()
        self._all = ordered(commands, {})
        self._listed: list[tuple[SystemCommand, Content]] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="box commands"):
            yield Field(placeholder="a command", compact=True)
            yield OptionList(compact=True, markup=False)
            yield Static(Content("Enter do it · Up Down choose · Esc back"), classes="hint")

    async def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self._all = ordered(self._all, await asyncio.to_thread(usage.commands_used))
        self._find(self.query_one(Field).value)

    def on_input_changed(self, event: Input.Changed) -> None:
        """List what is meant."""
        self._find(event.value)

    def on_input_submitted(self) -> None:
        """Do what the cursor is on."""
        at = self.query_one(OptionList).highlighted
        if at is not None and at < len(self._listed):
            self._choose(at)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A command was clicked."""
        self._choose(event.option_index)

    def action_move(self, step: int) -> None:
        """Another command."""
        listed = self.query_one(OptionList)
        if self._listed:
            at = (listed.highlighted or 0) + step
            if abs(step) == 1:
                at %= len(self._listed)
            listed.highlighted = max(0, min(len(self._listed) - 1, at))

    def action_leave(self) -> None:
        """Leave without a command."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)

    def on_resize(self) -> None:
        self._show()

    # Inside.

    def _choose(self, at: int) -> None:
        command = self._listed[at][0]
        self.app.run_worker(
            asyncio.to_thread(usage.note_command, command.title), exit_on_error=False
        )
        self.dismiss(command)

    def _find(self, text: str) -> None:
        self._listed = found(self._all, text)
        self._show()
        self.query_one(OptionList).highlighted = 0 if self._listed else None

    def _show(self) -> None:
        listed = self.query_one(OptionList)
        at, width = listed.highlighted, max(20, listed.size.width - 2)
        first = max((len(command.title) for command, _ in self._listed), default=0) + 2
        rows = [Option(row(command, name, first, width)) for command, name in self._listed]
        nothing = Option(styled("nothing is called so", "$foreground 70%"), disabled=True)
        listed.set_options(rows or [nothing])
        listed.highlighted = min(at or 0, len(rows) - 1) if rows else None


def open_commands(app: App[Any]) -> None:
    """Let the person choose one of the commands of the screen that is shown, and do it."""

    def do(command: SystemCommand | None) -> None:
        if command is not None:
            app.call_later(command.callback)

    if not isinstance(app.screen, CommandDialog):
        app.push_screen(CommandDialog(app.get_system_commands(app.screen)), do)


def ordered(commands: Iterable[SystemCommand], used: Mapping[str, int]) -> list[SystemCommand]:
    """The usual commands, then the others, those first that were used most."""
    places = {title: place for place, title in enumerate(USUAL)}
    return sorted(
        commands, key=lambda one: (places.get(one.title, len(USUAL)), -used.get(one.title, 0))
    )


def found(commands: Iterable[SystemCommand], text: str) -> list[tuple[SystemCommand, Content]]:
    """The commands that a few characters mean, the likeliest first, with these characters marked."""
    text = text.strip()
    if not text:
        return [(command, Content(command.title)) for command in commands]
    matcher = Matcher(text, match_style=Style(bold=True, underline=True))
    scored = [
        (max(matcher.match(one.title), HELP_SCORE * _in_words(text, one.help)), one)
        for one in commands
    ]
    scored = [(score, one) for score, one in scored if score > 0]
    scored.sort(key=lambda pair: -pair[0])
    return [(one, matcher.highlight(one.title)) for _, one in scored]


def _in_words(text: str, words: str) -> float:
    """Words are found as they are written: single characters of a sentence mean nothing."""
    return 1.0 if text.lower() in words.lower() else 0.0


def row(command: SystemCommand, name: Content, first: int, width: int) -> Content:
    """A command's name, what it does as far as there is room, and its key at the right."""
    key = styled(SHOWN.get(command.title, ""), "$foreground 85%")
    name += Content(" " * (first - len(name)))
    return ends(name + styled(command.help, "$foreground 70%"), key, width)
