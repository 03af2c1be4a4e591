"""The open session: opening, leaving, renaming and deleting saved sessions, and unsent text.

It has no engine; `chat` adds the replies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from engine.errors import KtchatError, RequestError
from ktchat.attachments.attachment import Draft
from ktchat.common.precedence import Layers
from ktchat.common.text import one_line
from ktchat.store.conversation import Conversation, TurnState
from ktchat.store.saver import Notify, Saver, Severity
from ktchat.store.store import UNDO_SECONDS, Store

LayersOf = Callable[[str], Layers]


class OpenSession:
    """The session that is open. Create it inside a running event loop.

    `notify` is told what concerns no single call: saving failed, saving works again, a repair.
    """

    def __init__(
        self, store: Store, layers: LayersOf | None = None, notify: Notify | None = None
    ) -> None:
        self.store = store
        self.layers_of: LayersOf = layers or (lambda path: Layers())
        """What is said of the settings for the model at a path; asked whenever it matters, since it may change."""
        self.conversation = Conversation(system=self.system)
        self._began_with: str | None = self.conversation.system
        self.read_only = False
        """Another ktchat has this session open: it is shown, and cannot be continued here."""
        self.draft = Draft()
        """The unsent message of the session; report changes by `keep_draft`."""
        self.notify: Notify = notify or _silent
        self.saver = Saver(store, lambda words, severity: self.notify(words, severity))
        self._closed = False
        self._tidied = False
        self._purging: asyncio.Task[None] | None = None

    @property
    def model_path(self) -> str:
        """Of the model that answers; empty: there is none."""
        return ""

    @property
    def system(self) -> str:
        """The system message with which a new session begins."""
        return str(self.layers_of(self.model_path).value("system"))

    def follow_settings(self) -> None:
        """A session that has not begun takes the system message with which new ones begin now, unless it was given
        one of its own."""
        if not self.conversation.turns and self.conversation.system == self._began_with:
            self._began_with = self.conversation.system = self.system

    @property
    def busy(self) -> bool:
        """Whether a reply is being written; the session cannot be left then."""
        return False

    async def new(self) -> Conversation:
        """Begin a session. It is saved, and listed, when its first message is sent.

        Takes over the unsent text of a session that never began, if there is one. Raises
        `RequestError` while a reply is being written.
        """
        self._must_be_idle()
        await self._leave()
        self.conversation, self.read_only = Conversation(system=self.system), False
        self.draft, self._began_with = Draft(), self.conversation.system
        with contextlib.suppress(KtchatError):  # unreadable sessions do not hinder a new one
            await self._tidy()
            orphan = await self.store.call(self.store.orphan_draft)
            if orphan is not None and await self.store.call(self.store.claim, orphan[0]):
                self.conversation.id, self.draft = orphan
        await self.store.call(self.store.claim, self.conversation.id)
        return self.conversation

    async def open(self, session: str) -> Conversation:
        """Open a saved session. Raises `UnknownSessionError`, `StoreError`, or `RequestError`
        while a reply is being written.

        A reply that was being written when its program ended is marked interrupted. A session
        that is open in another ktchat is opened with `read_only` set; open it again to see what
        was added there, or to take it over once it is closed there.
        """
        self._must_be_idle()
        if session == self.conversation.id and not self.read_only:
            return self.conversation
        held = await self.store.call(self.store.claim, session)
        try:
            conversation = self.saver.unsaved(session)
            draft = self.saver.unsaved_draft(session)
            if conversation is None:
                conversation = await self.store.call(self.store.load, session)
                draft = draft or await self.store.call(self.store.draft, session)
        except KtchatError:
            self.store.locks.release(session)
            raise
        await self._leave()
        with contextlib.suppress(KtchatError):  # it is done at the next start
            await self._tidy()
        self.conversation, self.read_only = conversation, not held
        self.draft, self._began_with = draft or Draft(), None
        if held:
            self._mark_interrupted()
        return conversation

    async def rename(self, session: str, title: str) -> None:
        """Give a session another title (one line; an empty one changes nothing).

        Raises `SessionBusyError` when it is open in another ktchat, whose next save would take it back.
        """
        words = one_line(title)
        if not words:
            return
        is_open = session == self.conversation.id
        open_here = self.conversation if is_open and not self.read_only else None
        conversation = open_here or self.saver.unsaved(session)
        if conversation is None:
            await self.store.call(self.store.rename, session, words)
            return
        conversation.title = words
        if conversation.turns:
            self.saver.touch(conversation)
            await self.saver.flush()

    async def delete(self, session: str) -> None:
        """Delete a session; `undo_delete` brings it back. The open one gives way to a new one.

        Raises `SessionBusyError` when it is open in another ktchat.
        """
        if session == self.conversation.id:
            await self.new()
        await self.saver.flush()
        await self.store.call(self.store.delete, session)
        asyncio.get_running_loop().call_later(UNDO_SECONDS + 1.0, self._purge)

    async def undo_delete(self, session: str) -> None:
        """Bring back a deleted session, within `store.UNDO_SECONDS`."""
        await self.store.call(self.store.restore, session)

    def keep_draft(self, draft: Draft) -> None:
        """Note what stands in the prompt box, so that it survives anything. Cheap."""
        if not self.read_only and draft != self.draft:
            self.draft = draft
            self.saver.keep_draft(self.conversation.id, draft)

    async def saved(self, seconds: float) -> bool:
        """Save everything; whether that was possible within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await self.saver.flush()
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Save everything and let go of the session."""
        self._closed = True
        await self.saver.close()
        await self.store.call(self.store.close)

    def _must_be_idle(self) -> None:
        if self.busy:
            raise RequestError("A reply is being written", "", "Stop it first, with Esc")

    async def _leave(self) -> None:
        """Save the open session and let it go (not while it is only in memory)."""
        if await self.saver.flush() and not self.read_only:
            self.store.locks.release(self.conversation.id)

    def _mark_interrupted(self) -> None:
        for turn in self.conversation.turns:
            if turn.state == TurnState.STREAMING:
                turn.state = TurnState.INTERRUPTED
                self.saver.touch(self.conversation, turn)

    async def _tidy(self) -> None:
        """Once a run: remove for good what was deleted in an earlier one."""
        if not self._tidied:
            self._tidied = True
            await self.store.call(self.store.purge)

    def _purge(self) -> None:
        async def purge() -> None:
            with contextlib.suppress(KtchatError):  # it is done at the next start
                await self.store.call(self.store.purge)

        if not self._closed:
            self._purging = asyncio.get_running_loop().create_task(purge())


def _silent(words: str, severity: Severity) -> None:
    """The `notify` of a session that nobody watches."""
