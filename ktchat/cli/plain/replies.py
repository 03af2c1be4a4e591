"""Replies in the plain chat: announced, written as they come, and marked at their end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from engine.common.threads import ask
from engine.errors import KtchatError
from engine.protocol import (
    Failed,
    Figures,
    Finished,
    Notice,
    Progress,
    Quiet,
    Text,
    Thinking,
    WasThinking,
)
from ktchat.attachments.attachment import Draft
from ktchat.cli.plain.room import make_room
from ktchat.cli.plain.state import PlainChat
from ktchat.cli.plain.telling import ending
from ktchat.common import words
from ktchat.session.chat import Update
from ktchat.session.compaction import unsent
from ktchat.store.conversation import Conversation

Begin = Callable[[], AsyncGenerator[Update, None]]


async def send(plain: PlainChat, text: str) -> None:
    """Send a message, or put it in the place of the one that is being edited."""
    chat, turn, attached = plain.chat, plain.edited, plain.attachments
    plain.edited = None
    draft = Draft(text, attached)
    conversation = unsent(chat.conversation, draft, turn or chat.retried(draft))

    def begin() -> AsyncGenerator[Update, None]:
        return chat.send(text, attached) if turn is None else chat.edit(text, turn, attached)

    await reply(plain, begin, conversation, text)


async def reply(plain: PlainChat, begin: Begin, conversation: Conversation, text: str = "") -> None:
    """Have a reply written, after room was made for it; `text` is what the person wrote for it."""
    if plain.chat.loaded is None:
        _refuse(plain, "no model is loaded: /model opens one", text)
        return
    try:
        room = await make_room(plain, conversation)
        if room == "new session":
            await send(plain, text or conversation.turns[-1].raw_prompt)
        elif room == "none":
            plain.failed = True
            plain.keep(text)
        else:
            updates = begin()
            plain.prefill = ""
            await _Reply(plain).follow(updates)
    except KtchatError as error:  # nothing was changed
        _refuse(plain, str(error), text)


def _refuse(plain: PlainChat, why: str, text: str) -> None:
    plain.failed = True
    plain.say(f"error: {why}")
    plain.keep(text)


class _Reply:
    """One reply being written."""

    def __init__(self, plain: PlainChat) -> None:
        self._plain = plain
        self._part = ""
        self._thought = 0  # tokens

    async def follow(self, updates: AsyncGenerator[Update, None]) -> None:
        """Write what comes, to the end."""
        plain = self._plain
        plain.voice.begin_work()
        try:
            async with aclosing(updates) as stream:
                async for update in stream:
                    self._take(update)
        finally:
            plain.thinking = False
            plain.voice.finish()
        if plain.settings.settings.model_titles:
            plain.later(plain.chat.write_title())

    def _take(self, update: Update) -> None:
        plain = self._plain
        match update:
            case Progress():
                plain.voice.progress(words.progress(update))
            case Thinking(text, tokens):
                self._enter("thinking")
                self._thought += tokens
                if not plain.settings.settings.thinking_folded:
                    plain.voice.speak(text)
            case Text(text):
                self._enter("reply")
                plain.voice.speak(text)
            case WasThinking():
                plain.say("what was written so far proved to be thinking")
                self._part = ""
            case Notice(text):
                plain.say(f"note: {text}")
            case Quiet(quiet):
                plain.say_quiet(quiet)
            case Finished(_, figures):
                self._end(figures)
            case Failed(error):
                self._fail(error)
            case _:
                pass

    def _enter(self, part: str) -> None:
        """Announce that what follows is another part of the reply."""
        if part != self._part:
            self._leave_thinking()
            self._part, self._plain.thinking = part, part == "thinking"
            self._plain.say(part)

    def _leave_thinking(self) -> None:
        if self._part == "thinking":
            self._plain.say(f"thought: {words.counted(self._thought, 'token')}")

    def _end(self, figures: Figures) -> None:
        plain, loaded = self._plain, self._plain.chat.loaded
        self._leave_thinking()
        plain.say(ending(plain.chat.conversation.last, figures))
        if loaded is not None:
            plain.later(_note(loaded.path, figures, loaded.device))

    def _fail(self, error: KtchatError) -> None:
        plain, last = self._plain, self._plain.chat.conversation.last
        plain.failed = True
        plain.say(f"error: {error}")
        plain.say("end, failed; /regenerate tries again")
        if last is not None and last.without_reply:
            plain.keep(last.raw_prompt)


async def _note(path: str, figures: Figures, device: Any) -> None:
    """Keep how fast a reply came and when the model was used: plans say it from now on."""
    from engine.plan.speed import record_run
    from ktchat.common import usage

    await ask(usage.note_opened, path)
    await ask(record_run, Path(path), figures, device)
