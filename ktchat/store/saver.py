"""Writes what changed in conversations, soon and in the background, and keeps it until written.

While the disk refuses (full, read-only, broken) it says so once, holds everything in memory and tries
again; when that works it says so too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Literal

from engine.errors import KtchatError
from ktchat.attachments.attachment import Attachment, Draft
from ktchat.common.errors import StoreError
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.records import session_values, turn_values
from ktchat.store.store import Store

Severity = Literal["information", "warning", "error"]
Notify = Callable[[str, Severity], None]
"""Tells the person something: words and how serious it is. Called on the event loop."""

STEP_SECONDS = 0.2
"""A reply is written every so often: with the time of the write, at most 250 ms of it are lost
when the process is killed ..."""

STEP_TOKENS = 64
"""... or so many tokens, whichever comes first."""

DRAFT_SECONDS = 1.0
FLUSH_SECONDS = 5.0
"""Longest wait for a disk that neither writes nor fails."""

RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 30.0


class Saver:
    """The unsaved changes of one program run."""

    def __init__(self, store: Store, notify: Notify) -> None:
        self.store = store
        self.error: KtchatError | None = None
        """Why the last attempt failed; None when everything can be saved."""
        self._notify = notify
        self._sessions: dict[str, Conversation] = {}
        self._turns: dict[str, dict[str, Turn]] = {}
        self._drafts: dict[str, Draft] = {}
        self._texts: set[tuple[str, str]] = set()  # session and digest of what is on the disk
        self._underway: dict[str, Conversation] = {}  # what is just being written
        self._due: float | None = None  # monotonic time of the next attempt
        self._last = 0.0  # monotonic time of the last attempt
        self._tokens = 0  # tokens since then
        self._retry = RETRY_SECONDS
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._saves: set[asyncio.Task[bool]] = set()
        self._closed = False

    @property
    def pending(self) -> bool:
        """Whether something is not on the disk."""
        return self._writing.locked() or self._changed

    def unsaved(self, session: str) -> Conversation | None:
        """The conversation in memory, if it is ahead of the disk."""
        return self._sessions.get(session) or self._underway.get(session)

    def unsaved_draft(self, session: str) -> Draft | None:
        """The unsent message in memory, if it is ahead of the disk."""
        return self._drafts.get(session)

    def left(self) -> tuple[list[Conversation], dict[str, Draft]]:
        """What is not on the disk: conversations and unsent messages, by session."""
        sessions = self._underway | self._sessions
        return list(sessions.values()), dict(self._drafts)

    def touch(self, conversation: Conversation, *turns: Turn, tokens: int = 0) -> None:
        """Note that a session and these turns changed; they are written within `STEP_SECONDS`."""
        self._sessions[conversation.id] = conversation
        changed = self._turns.setdefault(conversation.id, {})
        changed.update({turn.id: turn for turn in turns})
        self._tokens += tokens
        self._plan(0.0 if self._tokens >= STEP_TOKENS else self._last + STEP_SECONDS)

    def keep_draft(self, session: str, draft: Draft) -> None:
        """Note the unsent message of a session; it is written within `DRAFT_SECONDS`."""
        self._drafts[session] = draft
        self._plan(time.monotonic() + DRAFT_SECONDS)

    async def flush(self) -> bool:
        """Write everything now. False (after telling the person once) if that was impossible."""
        task = asyncio.get_running_loop().create_task(self._locked_write(), name="save")
        self._saves.add(task)
        task.add_done_callback(self._saves.discard)
        # A reader that goes away must not take the write with it.
        done, _ = await asyncio.wait({task}, timeout=FLUSH_SECONDS)
        return task.result() if done else False

    async def close(self) -> None:
        """Write what is left and end the background task."""
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self.flush()

    @property
    def _changed(self) -> bool:
        return bool(self._sessions or self._turns or self._drafts)

    async def _locked_write(self) -> bool:
        async with self._writing:
            return await self._write()

    def _plan(self, due: float) -> None:
        if self.error is not None:
            return  # the next attempt is planned
        self._due = due if self._due is None else min(due, self._due)
        self._start()
        self._wake.set()

    def _start(self) -> None:
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run(), name="saver")

    async def _run(self) -> None:
        while not self._closed:
            left = None if self._due is None else self._due - time.monotonic()
            if left is not None and left <= 0:
                await self.flush()
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    async def _write(self) -> bool:
        self._due = None
        self._last = time.monotonic()
        self._tokens = 0
        if not self._changed:
            return True
        sessions, turns, drafts = self._sessions, self._turns, self._drafts
        self._sessions, self._turns, self._drafts = {}, {}, {}
        self._underway = sessions
        rows = [
            (session_values(c), [turn_values(name, t) for t in turns.get(name, {}).values()])
            for name, c in sessions.items()
        ]
        texts = self._new_texts(turns, drafts)
        try:
            await self.store.call(self.store.save, rows, list(drafts.items()), texts)
        except BaseException as error:
            # What changed during the attempt is newer than what it tried to write.
            self._sessions = sessions | self._sessions
            self._turns = {
                name: turns.get(name, {}) | self._turns.get(name, {})
                for name in turns.keys() | self._turns.keys()
            }
            self._drafts = drafts | self._drafts
            if not isinstance(error, Exception):
                raise
            self._failed(error if isinstance(error, KtchatError) else _fault(error))
            return False
        finally:
            self._underway = {}
        # A draft that is written takes texts away that nothing names any more.
        self._texts = {known for known in self._texts if known[0] not in drafts}
        self._texts |= {(session, item.digest) for session, item in texts}
        self._succeeded()
        return True

    def _new_texts(
        self, turns: Mapping[str, Mapping[str, Turn]], drafts: Mapping[str, Draft]
    ) -> list[tuple[str, Attachment]]:
        """The texts of attachments that this run has not written yet, by session."""
        found = [
            (s, item) for s, some in turns.items() for t in some.values() for item in t.attachments
        ]
        found += [(s, item) for s, draft in drafts.items() for item in draft.attachments]
        return [(s, item) for s, item in found if (s, item.digest) not in self._texts]

    def _failed(self, error: KtchatError) -> None:
        if self.error is None:
            self._notify(f"{error} The chat goes on in memory.", "error")
            self._retry = RETRY_SECONDS
        self.error = error
        self._due = time.monotonic() + self._retry
        self._retry = min(self._retry * 2, MAX_RETRY_SECONDS)
        self._start()
        self._wake.set()

    def _succeeded(self) -> None:
        if self.error is not None:
            self.error = None
            self._notify("Everything is saved again.", "information")
        for notice in self.store.notices:
            self._notify(notice, "warning")
        self.store.notices.clear()
        if self._changed:
            self._plan(self._last + STEP_SECONDS)


def _fault(error: Exception) -> StoreError:
    """A fault of our own in the store's thread, as an error like any other."""
    return StoreError("The sessions cannot be saved", f"{type(error).__name__}: {error}")
