"""The plain chat in a pseudo-terminal: what is typed, and every byte that comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from ktchat.store.conversation import Conversation
from ktchat.store.store import Store
from tests.support.clock import until
from tests.tui.terminal import Terminal

ENTER, UP, CTRL_C, CTRL_D, CTRL_U = "\r", "\x1b[A", "\x03", "\x04", "\x15"
PROMPT = "You: "

RUNNING: list[Terminal] = []
"""Chats of the test that runs: closed at its end, whatever becomes of it."""


class Chat(Terminal):
    """`Chat(home, text="a reply")` on a scripted engine; without a reply it says the message again."""

    def __init__(
        self, home: Path, *options: str, env: dict[str, str] | None = None, **script: Any
    ) -> None:
        if "text" not in script and "replies" not in script:
            script["replies"] = []
        command = ("-m", "tests.support.fake_cli", json.dumps(script), "--plain", *options)
        super().__init__(*command, home=home, **(env or {}))
        RUNNING.append(self)
        self.home = home
        self._seen = 0  # bytes that an earlier `sees` has gone past

    def ready(self) -> Chat:
        """Wait until it asks for a message."""
        self.sees(PROMPT)
        return self

    def next(self, words: str) -> str:
        """Wait for words behind those that were waited for last; what came up to their end."""
        found = -1

        def there() -> bool:
            nonlocal found
            self.read(0.02)
            found = self.output.find(words.encode(), self._seen)
            return found >= 0

        try:
            until(there)
        except AssertionError:
            raise AssertionError(f"{words!r} did not come: {self.output[self._seen :]!r}") from None
        start, self._seen = self._seen, found + len(words.encode())
        return self.output[start : self._seen].decode().replace("\r\n", "\n")

    def sees(self, words: str, seconds: float = 0.0) -> float:
        self.next(words)
        return 0.0

    def say(self, text: str, *then: str) -> str:
        """Type a line and Enter; what comes up to the next prompt, in which `then` must come one after another."""
        self.type(text + ENTER)
        came = "".join(self.next(words) for words in then)
        return came + self.next(PROMPT)

    def leave(self) -> int:
        """Ctrl+D at the prompt."""
        self.type(CTRL_D)
        return self.wait()


def saved(home: Path) -> list[Conversation]:
    """The sessions on the disk, the last used first."""
    with closing(Store(home / "ktchat.db")) as store:
        return [store.load(summary.id) for summary in store.sessions()]


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something on the disk holds."""
    until(condition)
