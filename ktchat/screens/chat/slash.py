"""Commands by name: `/system Be short.` at the beginning of the prompt does what the palette does.

Their table is `keys.KEYS` and `commands.listed`: whatever has a `slash` there is a command here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from ktchat.common.text import one_line
from ktchat.screens.chat.command import Command
from ktchat.widgets.chat.suggestions import Suggestion

if TYPE_CHECKING:
    from ktchat.screens.chat.frame import Frame

NAME = re.compile(r"/([A-Za-z][\w-]*)?\Z")
"""A name that is being typed."""
CALL = re.compile(r"/([A-Za-z][\w-]*)(?:\s+(.*))?\Z", re.DOTALL)
"""A whole command; `/etc/hosts` is none."""
USUAL = ("new", "model", "system", "temp", "settings", "think", "file", "export", "compact", "help")
"""Those that are offered first."""


def unknown(text: str) -> str:
    """The name of a command that a message would be; empty: it is a message."""
    call = CALL.match(text)
    return one_line(call[1], 40) if call is not None else ""


class Slash:
    """The commands of one chat screen."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self.listed: Callable[[], Iterable[Command]] = tuple
        """All commands, those without a name too; the program says which."""

    def offered(self, text: str) -> list[Suggestion] | None:
        """What a text may become: commands, or what may follow one; None: it begins with no command."""
        if found := NAME.match(text):
            return [self._row(command) for command in self._begun((found[1] or "").lower())]
        call = CALL.match(text)
        if call is None or "\n" in (call[2] or ""):
            return None
        command = self._named(call[1])
        if command is None or command.take is None:
            return None
        begun = (call[2] or "").lower()
        return [
            Suggestion(choice, "", partial(self._do, command, choice))
            for choice in command.choices()
            if begun in choice.lower() and choice != call[2]
        ]

    def run(self, text: str) -> bool:
        """Do what a message says that is a command; False: it is none, or none that is known: see `unknown`."""
        call = CALL.match(text)
        command = self._named(call[1]) if call is not None else None
        if call is None or command is None:
            return False
        self._frame.prompt.remember(text)
        self._do(command, (call[2] or "").strip())
        return True

    def helped(self) -> list[tuple[str, str]]:
        """Every command and what it does, for the help."""
        commands = sorted(self._all(), key=lambda command: command.slash)
        return [(_shown(command), command.help) for command in commands]

    # Inside.

    def _do(self, command: Command, argument: str) -> None:
        prompt = self._frame.prompt
        prompt.put("")
        if argument and command.take is not None:
            command.take(argument)
        elif argument:
            words = f"/{command.slash} takes nothing behind it: {command.help}"
            self._frame.status.say(words, "warning")
            prompt.put(f"/{command.slash} {argument}")
        else:
            command.run()

    def _all(self) -> Iterable[Command]:
        return (command for command in self.listed() if command.slash)

    def _begun(self, begun: str) -> list[Command]:
        """Those whose name begins with this, then those that have it in name or title; the usual ones first."""
        commands = sorted(self._all(), key=lambda command: _place(command.slash))
        first = [command for command in commands if command.slash.startswith(begun)]
        words = [c for c in commands if c not in first and begun in f"{c.slash} {c.title}".lower()]
        return [*first, *words]

    def _named(self, name: str) -> Command | None:
        return next((c for c in self._all() if c.slash == name.lower()), None)

    def _row(self, command: Command) -> Suggestion:
        complete = partial(self._frame.prompt.put, f"/{command.slash} ") if command.take else None
        return Suggestion(_shown(command), command.help, partial(self._do, command, ""), complete)


def _place(name: str) -> int:
    return USUAL.index(name) if name in USUAL else len(USUAL)


def _shown(command: Command) -> str:
    return f"/{command.slash} {command.argument}".rstrip()
