"""`ChatSession`: one person's chat over an engine and a store.

Knows the order of things: the message is saved, the conversation becomes a prompt, the reply is
taken from the engine's events, saved in steps and settled. Its `conversation` is the single truth
of what was said. Knows nothing of the screen: the full-screen application and `ktchat run` both
stand on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.errors import EngineError, KtchatError, RequestError
from engine.protocol import (
    Event,
    Failed,
    Figures,
    Finished,
    Load,
    Loaded,
    Message,
    Notice,
    Sampling,
    Text,
    Thinking,
)
from ktchat.conversation import Conversation, State, Turn, title_of
from ktchat.errors import SessionBusyError
from ktchat.saver import Notify, Saver, Severity
from ktchat.store import UNDO_SECONDS, Store
from ktchat.text import Sanitiser, one_line, sanitise


class Engine(Protocol):
    """What a chat needs of `engine.client.Engine`."""

    @property
    def loaded(self) -> Loaded | None: ...
    def load(self, command: Load, /) -> AsyncIterator[Event]: ...
    def generate(
        self, messages: Sequence[Message], sampling: Sampling, max_tokens: int | None, /
    ) -> AsyncIterator[Event]: ...
    def cancel(self) -> None: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Started:
    """The message is in the conversation (and on the disk, if that can be written).

    `replaced` left the conversation for it: the turn that was regenerated, edited or retried.
    """

    turn: Turn
    replaced: Turn | None = None


Update = Started | Event
"""What `ChatSession.send` yields: `Started` first, `Finished` or `Failed` last."""


class ChatSession:
    """The chat of one running program: the session that is open, and what can be done in it.

    Create it inside a running event loop. Set `sampling`, `max_tokens` and `system` at any time;
    they hold from the next message on. All text in the events is safe to draw; the raw text is in
    the turn. `notify` is told what concerns no single reply: saving failed, saving works again.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        *,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        system: str = "",
        notify: Notify | None = None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.sampling = sampling or Sampling()
        self.max_tokens = max_tokens
        self.conversation = Conversation(system=system)
        self.read_only = False
        """Another ktchat has this session open: it is shown, and cannot be continued here."""
        self.draft = ""
        """The unsent text with which the session was opened; report changes by `keep_draft`."""
        self.notify: Notify = notify or _silent
        self.saver = Saver(store, lambda words, severity: self.notify(words, severity))
        self._system = system
        self._active: Turn | None = None
        self._stopping = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    # What is going on.

    @property
    def busy(self) -> bool:
        """Whether a reply is being written."""
        return self._active is not None

    @property
    def loaded(self) -> Loaded | None:
        """The model that answers."""
        return self.engine.loaded

    @property
    def context_used(self) -> int:
        """Tokens of the context that the conversation took at its last reply."""
        used = (
            turn.figures.context_used for turn in reversed(self.conversation.turns) if turn.figures
        )
        return next(used, 0)

    @property
    def context_size(self) -> int:
        """Tokens of the model's context; 0 while none is loaded."""
        return self.engine.loaded.context if self.engine.loaded else 0

    # Sessions.

    async def new(self) -> Conversation:
        """Begin a session. It is saved, and listed, when its first message is sent.

        Takes over the unsent text of a session that never began, if there is one.
        """
        self._must_be_idle()
        await self._leave()
        fresh = Conversation(system=self._system)
        self.draft = ""
        with contextlib.suppress(KtchatError):  # unreadable sessions do not hinder a new one
            await self.store.call(self.store.purge)
            orphan = await self.store.call(self.store.orphan_draft)
            if orphan is not None and await self.store.call(self.store.claim, orphan[0]):
                fresh.id, self.draft = orphan
        self._enter(fresh, read_only=False)
        return fresh

    async def open(self, session: str) -> Conversation:
        """Open a saved session. Raises `UnknownSessionError` or `StoreError`.

        A reply that was being written when its program ended is marked interrupted. A session
        that is open in another ktchat is opened with `read_only` set.
        """
        self._must_be_idle()
        if session == self.conversation.id and not self.read_only:
            return self.conversation
        held = await self.store.call(self.store.claim, session)
        try:
            conversation = self.saver.unsaved(session)
            if conversation is None:
                conversation = await self.store.call(self.store.load, session)
            draft = await self.store.call(self.store.draft, session)
        except KtchatError:
            self.store.locks.release(session)
            raise
        await self._leave()
        self._enter(conversation, read_only=not held)
        self.draft = draft
        if held:
            self._mark_interrupted()
        return conversation

    async def rename(self, session: str, title: str) -> None:
        """Give a session another title (one line; empty is refused by doing nothing)."""
        words = one_line(title)
        if not words:
            return
        if session == self.conversation.id:
            self.conversation.title = words
        await self.store.call(self.store.rename, session, words)

    async def delete(self, session: str) -> None:
        """Delete a session; `undo_delete` brings it back. The open one gives way to a new one."""
        if session == self.conversation.id:
            await self.new()
        await self.saver.flush()
        await self.store.call(self.store.delete, session)
        asyncio.get_running_loop().call_later(UNDO_SECONDS + 1.0, self._purge)

    async def undo_delete(self, session: str) -> None:
        """Bring back a deleted session (within `store.UNDO_SECONDS`)."""
        await self.store.call(self.store.restore, session)

    def keep_draft(self, text: str) -> None:
        """Note what stands in the prompt box, so that it survives anything. Cheap."""
        if not self.read_only and text != self.draft:
            self.draft = text
            self.saver.keep_draft(self.conversation.id, text)

    # The model.

    async def load(self, command: Load) -> AsyncGenerator[Event, None]:
        """Load a model; the last event is `Loaded` or `Failed`."""
        self._must_be_idle()
        async for event in self.engine.load(command):
            yield _shown(event)

    # Replies.

    async def send(self, text: str) -> AsyncGenerator[Update, None]:
        """Send a message and yield what becomes of it.

        Raises `RequestError` (nothing to send, a reply is being written) or `SessionBusyError`
        before anything is changed; a failure of the engine is the event `Failed`. Sending again
        what just failed replaces the failed turn.
        """
        if not text.strip():
            raise RequestError("There is nothing to send", "The message is empty", "")
        last = self.conversation.last
        retried = last if last and last.without_reply and last.raw_prompt == text else None
        async for update in self._answer(text, retried):
            yield update

    async def regenerate(self) -> AsyncGenerator[Update, None]:
        """Replace the last reply by another one. The old one stays in the file."""
        last = self.conversation.last
        if last is None:
            raise RequestError("There is no reply to regenerate", "", "Send a message first")
        async for update in self._answer(last.raw_prompt, last):
            yield update

    async def edit_last(self, text: str) -> AsyncGenerator[Update, None]:
        """Replace the last message by `text` and answer it. The old turn stays in the file."""
        last = self.conversation.last
        if last is None:
            raise RequestError("There is no message to edit", "", "Send a message first")
        if not text.strip():
            raise RequestError("There is nothing to send", "The message is empty", "")
        async for update in self._answer(text, last):
            yield update

    def stop(self) -> None:
        """Stop the reply; what came is kept. The reply ends with `Finished("cancelled")`."""
        if self._active is not None:
            self._stopping = True
            self.engine.cancel()

    async def wait_idle(self) -> None:
        """Return when no reply is being written."""
        await self._idle.wait()

    async def close(self) -> None:
        """Interrupt the reply, save everything and let go of the session. Not the engine."""
        if self._active is not None:
            turn = self._active
            self.engine.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), 0.5)
            if turn.state in ("streaming", "stopped"):
                turn.state = "interrupted"
                self.saver.touch(self.conversation, turn)
        self._closed = True
        await self.saver.close()
        await self.store.call(self.store.close)

    # Inside.

    def _purge(self) -> None:
        async def purge() -> None:
            with contextlib.suppress(KtchatError):  # it is done at the next start
                await self.store.call(self.store.purge)

        if not self._closed:
            self._purging = asyncio.get_running_loop().create_task(purge())

    def _must_be_idle(self) -> None:
        if self._active is not None:
            raise RequestError("A reply is being written", "", "Stop it first, with Esc")

    async def _leave(self) -> None:
        await self.saver.flush()
        if not self.read_only:
            self.store.locks.release(self.conversation.id)

    def _enter(self, conversation: Conversation, *, read_only: bool) -> None:
        self.conversation = conversation
        self.read_only = read_only

    def _mark_interrupted(self) -> None:
        for turn in self.conversation.turns:
            if turn.state == "streaming":
                turn.state = "interrupted"
                self.saver.touch(self.conversation, turn)

    async def _answer(self, text: str, replaced: Turn | None) -> AsyncGenerator[Update, None]:
        self._must_be_idle()
        if self.read_only:
            raise SessionBusyError(
                "The message was not sent",
                "This session is open in another ktchat",
                "Close it there, or begin a new session with Ctrl+N",
            )
        turn = self._begin(text, replaced)
        try:
            await self._save_start()
            yield Started(turn, replaced)
            async with contextlib.aclosing(self._events(turn)) as events:
                async for event in events:
                    shown = self._take(turn, event)
                    if turn.state != "streaming":
                        await self.saver.flush()
                    yield shown
        finally:
            await self._settle(turn)

    def _begin(self, text: str, replaced: Turn | None) -> Turn:
        conversation = self.conversation
        if replaced is not None:
            conversation.turns.pop()
        last = conversation.last
        if (model := self.engine.loaded) is not None:
            conversation.model_path, conversation.model_name = model.path, model.name
        turn = Turn(
            raw_prompt=text,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            model=conversation.model_name,
            parent=last.id if last else None,
        )
        conversation.title = conversation.title or title_of(text)
        conversation.updated = turn.created
        conversation.turns.append(turn)
        self._active, self._stopping = turn, False
        self._clean = (Sanitiser(), Sanitiser())
        self._idle.clear()
        self.saver.touch(conversation, turn)
        if self.draft:
            self.keep_draft("")
        return turn

    async def _save_start(self) -> None:
        if await self.store.call(self.store.claim, self.conversation.id):
            await self.saver.flush()

    async def _events(self, turn: Turn) -> AsyncGenerator[Event, None]:
        """The engine's events for this turn; ends with `Finished` or `Failed` whatever happens."""
        messages = self.conversation.messages()
        if self._stopping:
            yield Finished("cancelled", Figures(context_size=self.context_size))
            return
        try:
            async for event in self.engine.generate(messages, turn.sampling, turn.max_tokens):
                if self._stopping and not isinstance(event, Finished | Failed):
                    self.engine.cancel()  # harmless when repeated; the first may have come too early
                yield event
                if isinstance(event, Finished | Failed):
                    return
        except KtchatError as error:
            yield Failed(error)
            return
        yield Failed(EngineError("The engine ended the reply without a reason", "", "Try again"))

    def _take(self, turn: Turn, event: Event) -> Event:
        """Note an event in the turn; the event as it may be shown."""
        if isinstance(event, Text):
            turn.raw_reply += event.text
            self.saver.touch(self.conversation, turn, tokens=event.tokens)
            return dataclasses.replace(event, text=self._clean[0].feed(event.text))
        if isinstance(event, Thinking):
            turn.raw_thinking += event.text
            self.saver.touch(self.conversation, turn, tokens=event.tokens)
            return dataclasses.replace(event, text=self._clean[1].feed(event.text))
        if isinstance(event, Finished):
            turn.state = "stopped" if event.reason == "cancelled" else "complete"
            turn.reason, turn.figures = event.reason, event.figures
        elif isinstance(event, Failed):
            turn.state, turn.error = "failed", event.error
        if turn.state != "streaming":
            self._touch_now(turn)
        return _shown(event)

    def _touch_now(self, turn: Turn) -> None:
        self.conversation.updated = time.time()
        self.saver.touch(self.conversation, turn)

    async def _settle(self, turn: Turn) -> None:
        """The end of a reply, also when its reader went away in the middle."""
        if turn.state == "streaming":
            self.engine.cancel()
            turn.state = "stopped" if self._stopping else "interrupted"
            self._touch_now(turn)
        self._active = None
        self._idle.set()


def _silent(words: str, severity: Severity) -> None:
    """The `notify` of a chat that nobody watches."""


def _shown(event: Event) -> Event:
    """An event whose texts are safe to draw (those of `Text` and `Thinking` are cleaned as a stream)."""
    if isinstance(event, Notice):
        return Notice(one_line(event.text, 400))
    if isinstance(event, Failed):
        error = event.error
        return Failed(type(error)(*(one_line(t, 400) for t in (error.what, error.why, error.todo))))
    if isinstance(event, Loaded):
        return dataclasses.replace(
            event,
            path=sanitise(event.path),
            name=one_line(event.name),
            architecture=one_line(event.architecture),
            quantisation=one_line(event.quantisation),
        )
    return event


__all__ = ["ChatSession", "Engine", "Started", "State", "Update"]
