"""The chat as the plain commands see it: what is open, what was listed, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from engine.errors import KtchatError
from ktchat.attachments.attachment import Attachment, Draft
from ktchat.cli.plain.voice import Voice
from ktchat.common.settings import SettingsFile
from ktchat.session.chat import ChatSession
from ktchat.store.conversation import Turn
from ktchat.store.saver import Severity

Ask = Callable[[str], Awaitable[str | None]]
"""Asks the person for a line; None: there is no answer."""
Listed = tuple[str, str | None]
"""A session, and a turn of it."""


class PlainChat:
    """One running plain chat. It lives in the event loop; only `voice` and plain attributes are read from outside."""

    def __init__(
        self, chat: ChatSession, settings: SettingsFile, voice: Voice, question: Ask | None
    ) -> None:
        self.chat = chat
        self.settings = settings
        self.voice = voice
        self.question = question
        """None: nobody is there to be asked."""
        self.prefill = ""
        """What stands in the line when the person is asked for the next message."""
        self.leaving: int | None = None
        """The exit code, once the person wants to leave."""
        self.failed = False
        """A message got no reply."""
        self.stopped = False
        """The person stopped what goes on."""
        self.loading = self.thinking = False
        self.edited: Turn | None = None
        """The turn that the next message replaces."""
        self.sessions: list[Listed] = []
        """What was listed last, by number."""
        self.models: list[str] = []
        """Paths of the models that were listed last, by number."""
        self.deleted: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    # What any command needs.

    def say(self, text: str) -> None:
        """Something from the program."""
        self.voice.say(text)

    def say_quiet(self, quiet: bool) -> None:
        """The engine gives no sign of life, or does again."""
        what = "does not answer: Ctrl+C ends it" if quiet else "answers again"
        self.say(f"the engine {what}")

    def notify(self, text: str, severity: Severity) -> None:
        """Something that concerns no single command."""
        self.say(text)

    def remember(self, **changes: Any) -> bool:
        """Change settings; those that cannot be saved hold until the program ends. False: one is not possible."""
        try:
            self.settings.update(**changes)
        except KtchatError as error:
            self.say(str(error))
            return all(getattr(self.settings.settings, k) == v for k, v in changes.items())
        return True

    def keep(self, text: str) -> None:
        """A message was not sent: it stands in the line again."""
        self.prefill = text
        self.chat.keep_draft(Draft(text, self.attachments))

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What goes with the next message: what was attached on the screen and not sent."""
        return self.chat.draft.attachments if self.edited is None else self.edited.attachments

    def later(self, work: Awaitable[Any]) -> None:
        """Do something in the background."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def rest(self) -> None:
        """End what goes on in the background."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """Stop what goes on; what came of a reply is kept."""
        self.stopped = True
        if self.loading:
            self.chat.engine.cancel()
        else:
            self.chat.stop()

    def turn(self, number: str) -> Turn | None:
        """The turn with a number as they are shown, from 1 on; empty: the last. None: there is none, which is said."""
        turns = self.chat.conversation.turns
        if not turns:
            self.say("there is no message yet")
            return None
        if not number:
            return turns[-1]
        if number.isdecimal() and 1 <= int(number) <= len(turns):
            return turns[int(number) - 1]
        self.say(f"there is no turn {number}: they have the numbers 1 to {len(turns)}")
        return None
