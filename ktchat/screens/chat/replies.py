"""Replies on the chat screen: sending, stopping, and what waits to be sent.

Knows the order of things between the prompt, the session and the transcript. Knows nothing of how
a reply is drawn or saved.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from engine.errors import KtchatError
from engine.protocol import Failed, Finished, Prefilled, Text, Thinking

if TYPE_CHECKING:
    from ktchat.screens.chat.chat import ChatScreen
    from ktchat.session.chat import ChatSession, Update
    from ktchat.store.saver import Severity

Answer = Callable[[str], "AsyncGenerator[Update, None]"]

_HEADER_SECONDS = 0.25


class Replies:
    """What is being said, and what will be said next."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self._queued: str | None = None
        self._kept: str | None = None  # the draft that an edit put aside; None: not editing
        self._tokens = 0
        self._header_at = 0.0

    @property
    def editing(self) -> bool:
        """Whether the prompt holds the last message to be replaced."""
        return self._kept is not None

    @property
    def waiting(self) -> bool:
        """Whether a message waits for the model or for the end of a reply."""
        return self._queued is not None

    # What the person does.

    def send(self, text: str) -> None:
        """Send a message, now or as soon as that is possible."""
        screen, chat = self._screen, self._screen.chat
        if chat is None or not self._ready(chat):
            if self._queued is not None:
                self._refuse(text, "one message is waiting already")
            elif self.editing:
                self._refuse(text, "not yet: something is still going on")
            else:
                self._queued = text
                screen.refresh_status()
        elif chat.loaded is None and not screen.models.wanted:
            self._refuse(text, "no model is loaded: choose one with Ctrl+O")
        else:
            self._begin(chat, chat.edit_last if self.editing else chat.send, text)

    def regenerate(self) -> None:
        """Replace the last reply."""
        chat = self._screen.chat
        if chat is None or chat.conversation.last is None:
            self._screen.status.say("there is no reply to regenerate")
        elif chat.busy or self._screen.models.loading:
            self._screen.status.say("a reply is being written: Esc stops it")
        else:
            if self._screen.prompt.text == chat.conversation.last.raw_prompt:
                self._screen.prompt.clear()  # it came back with the failure that is tried again
            self._begin(chat, lambda _: chat.regenerate(), "")

    def edit(self) -> None:
        """Put the last message back into the prompt; sending replaces the turn."""
        screen, chat = self._screen, self._screen.chat
        if chat is None or chat.conversation.last is None:
            screen.status.say("there is no message to edit")
        elif chat.busy:
            screen.status.say("a reply is being written: Esc stops it")
        elif not self.editing:
            self._kept = screen.prompt.text
            screen.prompt.put(chat.conversation.last.raw_prompt)
            screen.prompt.focus()
            screen.refresh_status()

    def stop(self) -> bool:
        """Stop the reply, or take back what waits, or leave editing; False: nothing to do."""
        screen, chat = self._screen, self._screen.chat
        took_back = self._take_back()
        if chat is not None and chat.busy:
            chat.stop()
            return True
        if self.editing:
            self.leave_editing()
            return True
        if took_back:
            screen.refresh_status()
        return took_back

    def leave_editing(self) -> None:
        """The prompt gets back what stood in it before."""
        if self._kept is not None:
            self._screen.prompt.put(self._kept)
            self._kept = None
            self._screen.refresh_status()

    def send_waiting(self) -> None:
        """Send what waits, if it can be sent now."""
        chat = self._screen.chat
        if self._queued is None or chat is None or not self._ready(chat):
            return
        if chat.loaded is None:
            self._take_back()
            self._screen.refresh_status()
            return
        text, self._queued = self._queued, None
        self._begin(chat, chat.send, text)

    async def come_to_rest(self) -> bool:
        """Stop the reply and wait until it is settled; True if there was one."""
        chat = self._screen.chat
        self._take_back()
        self.leave_editing()
        if chat is None or not chat.busy:
            return False
        chat.stop()
        await self._screen.workers.wait_for_complete(
            [worker for worker in self._screen.workers if worker.group == "reply"]
        )
        return True

    # What happens.

    def _ready(self, chat: ChatSession) -> bool:
        """Whether a message could be sent now."""
        screen = self._screen
        return not (chat.busy or screen.models.loading or screen.sessions.switching)

    def _begin(self, chat: ChatSession, answer: Answer, text: str) -> None:
        """Start a reply; `text` is what the person wrote for it."""
        screen = self._screen
        try:
            updates = answer(text)
        except KtchatError as error:  # nothing was changed
            self._refuse(text, str(error), "error")
            return
        self._kept = None
        if text:
            screen.prompt.remember(text)
        self._tokens = 0
        screen.status.hush()
        screen.models.refused = ""
        screen.run_worker(
            self._follow(chat, updates), group="reply", exit_on_error=False, name="reply"
        )

    async def _follow(self, chat: ChatSession, updates: AsyncGenerator[Update, None]) -> None:
        """Take the updates of one reply to its end."""
        screen = self._screen
        try:
            async with aclosing(updates) as stream:
                async for update in stream:
                    await self._take(chat, update)
        finally:
            await screen.transcript.settle(chat.conversation.turns)
            if chat.loaded is not None:  # an engine that died has loaded it again, maybe elsewhere
                screen.models.show(chat)
            screen.header.show_context(chat.context_used or self._tokens, chat.context_size)
            screen.refresh_status()
            screen.sessions.refresh()
        self.send_waiting()

    async def _take(self, chat: ChatSession, update: Update) -> None:
        screen = self._screen
        from ktchat.session.chat import Started

        if isinstance(update, Started):
            await screen.transcript.begin(update.turn, update.replaced)
            screen.refresh_status()
            screen.sessions.refresh()
            return
        screen.transcript.feed(update)
        if isinstance(update, Prefilled):
            self._tokens = update.tokens
        elif isinstance(update, Text | Thinking):
            self._tokens += update.tokens
        elif isinstance(update, Finished):
            self._tokens = update.figures.context_used or self._tokens
            screen.models.note_speed(chat, update.figures)
        elif isinstance(update, Failed):
            last = chat.conversation.last
            if last is not None and last.without_reply and not screen.prompt.text.strip():
                screen.prompt.put(last.raw_prompt)
        now = time.monotonic()
        if now - self._header_at > _HEADER_SECONDS:
            self._header_at = now
            screen.header.show_context(self._tokens, chat.context_size)

    def _refuse(self, text: str, words: str, severity: Severity = "warning") -> None:
        """Say why a message was not sent; it stands in the prompt again."""
        self._screen.status.say(words, severity)
        self._put_before(text)

    def _put_before(self, text: str) -> None:
        """Put `text` back into the prompt, before what was typed since."""
        prompt = self._screen.prompt
        if text:
            prompt.put(f"{text}\n{prompt.text}" if prompt.text.strip() else text)

    def _take_back(self) -> bool:
        if self._queued is None:
            return False
        text, self._queued = self._queued, None
        self._put_before(text)
        return True
