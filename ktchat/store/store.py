"""The saved sessions: their turns and drafts, in one SQLite file.

Every method does its work at once and may wait for the disk (tens of ms): a program with a screen
calls them through `Store.call`, which runs them one after another in a thread of the store's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from sqlite3 import Row
from typing import ClassVar, ParamSpec, TypeVar

from engine.disk_cache.folder import CacheFolder
from ktchat.attachments.attachment import Attachment, Draft
from ktchat.common.errors import (
    SessionBusyError,
    StoreError,
    StoreVersionError,
    UnknownSessionError,
)
from ktchat.store import search_index, statements
from ktchat.store.attached import draft_from, has_attachments
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.database import Database
from ktchat.store.locks import Locks
from ktchat.store.records import (
    SessionSummary,
    conversation_from,
    session_values,
    storable,
    summary_from,
    turn_values,
)
from ktchat.store.search import Search, Words

UNDO_SECONDS = 10.0
"""How long a deleted session can be brought back."""

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """The sessions in the database at `path`.

    Every method raises `StoreError` when the file cannot be read or written.
    """

    keeps: ClassVar[bool] = True
    """Whether what is saved stays, here and in the KV cache on the disk."""

    def __init__(self, path: Path) -> None:
        self.locks = Locks(path.parent / "locks")
        self.database = Database(path, self.locks)
        self.search = Search(self.database)
        self.kv = CacheFolder(path.parent / "kv")
        """What the engine keeps on the disk of these sessions."""
        self._thread: ThreadPoolExecutor | None = None

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.database.path

    @property
    def notices(self) -> list[str]:
        """What the person should know about the file itself (a repair)."""
        return self.database.notices

    async def call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a method of this store in its thread: `await store.call(store.load, id)`."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "ktchat-store")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: method(*args, **kwargs))

    # Reading.

    def sessions(self, limit: int = -1) -> list[SessionSummary]:
        """The sessions that are not deleted, the last used first; so many at most."""
        rows = self.database.query(
            "WITH RECURSIVE listed AS (SELECT * FROM sessions WHERE deleted IS NULL"
            " ORDER BY updated DESC, id LIMIT ?),"
            " shown (session, id, parent) AS ("
            " SELECT t.session, t.id, t.parent FROM listed s JOIN turns t ON t.id = s.head"
            " UNION SELECT t.session, t.id, t.parent FROM shown JOIN turns t ON t.id = shown.parent)"
            " SELECT s.id, s.title, s.created, s.updated, s.model_name, count(n.id) AS turns"
            " FROM listed s LEFT JOIN shown n ON n.session = s.id"
            " GROUP BY s.id ORDER BY s.updated DESC, s.id",
            (limit,),
        )
        return [summary_from(row) for row in rows]

    def find(self, name: str) -> str:
        """The id of the session whose id starts with `name`. Raises `UnknownSessionError`."""
        wanted = name.strip().lower()
        rows = self.database.query(
            "SELECT id FROM sessions WHERE deleted IS NULL AND substr(id, 1, ?) = ? LIMIT 3",
            (len(wanted), storable(wanted)),
        )
        todo = "List them with: ktchat sessions list"
        if not rows or not wanted:
            raise UnknownSessionError(f"There is no session {name!r}", "", todo)
        if len(rows) > 1 and wanted not in [row["id"] for row in rows]:
            raise UnknownSessionError(f"More than one session starts with {name!r}", "", todo)
        return str(wanted if len(rows) > 1 else rows[0]["id"])

    def load(self, session: str) -> Conversation:
        """A session as it was last saved. Raises `UnknownSessionError`."""
        return self.load_all(session)[0]

    def load_all(self, session: str) -> tuple[Conversation, list[Turn]]:
        """A session and the turns that an edit or a new reply replaced in it."""
        with self.database.lock:
            rows, turns = self._rows_of(session)
            if not rows or rows[0]["head"] not in (None, *(turn["id"] for turn in turns)):
                # It is gone, or an index that lost entries hides it, which SQLite does not notice.
                self.database.check()
                rows, turns = self._rows_of(session)
            if not rows:
                raise UnknownSessionError("This session does not exist any more", "", "")
            texts = self._texts_of(session) if any(has_attachments(turn) for turn in turns) else {}
        return conversation_from(rows[0], turns, texts)

    def _rows_of(self, session: str) -> tuple[list[Row], list[Row]]:
        """Its own, unless it is deleted, and those of its turns."""
        own = "SELECT * FROM sessions WHERE id = ? AND deleted IS NULL"
        turns = "SELECT * FROM turns WHERE session = ? ORDER BY rowid"
        return self.database.query(own, (session,)), self.database.query(turns, (session,))

    def _texts_of(self, session: str) -> dict[str, str]:
        """The texts of a session's attachments, by their digests."""
        rows = self.database.query("SELECT hash, text FROM texts WHERE session = ?", (session,))
        return {str(row["hash"]): str(row["text"]) for row in rows}

    def has(self, session: str) -> bool:
        """Whether there is a session with this id, deleted or not."""
        return bool(self.database.query("SELECT 1 FROM sessions WHERE id = ?", (session,)))

    def last_session(self) -> str | None:
        """The id of the session that was used last."""
        rows = self.database.query(
            "SELECT id FROM sessions WHERE deleted IS NULL ORDER BY updated DESC, id LIMIT 1"
        )
        return str(rows[0]["id"]) if rows else None

    def recent_prompts(self, limit: int = 200, words: str = "") -> list[str]:
        """What the person sent, in every session that is not deleted, newest first, each text once: those that have
        all these words."""
        rows = self.database.query(
            "SELECT prompt FROM turns WHERE prompt <> ''"
            " AND session IN (SELECT id FROM sessions WHERE deleted IS NULL)"
            " GROUP BY prompt ORDER BY max(created) DESC LIMIT ?",
            (-1 if words.strip() else limit,),
        )
        wanted = Words(words)
        found = (str(row["prompt"]) for row in rows)
        return list(islice((text for text in found if wanted.within(text)), limit))

    # Writing.

    def save(
        self,
        rows: Iterable[statements.Rows],
        drafts: Iterable[tuple[str, Draft]] = (),
        texts: Iterable[tuple[str, Attachment]] = (),
    ) -> None:
        """Write sessions with some of their turns, drafts, and texts of attachments by session, all in one
        transaction."""
        self.database.write(statements.saving(rows, drafts, texts, self.search.indexed))

    def save_conversation(self, conversation: Conversation) -> None:
        """Write a session with all its turns."""
        written = sorted([*conversation.others, *conversation.turns], key=lambda turn: turn.number)
        turns = [turn_values(conversation.id, turn) for turn in written]
        texts = [(conversation.id, item) for turn in written for item in turn.attachments]
        self.save([(session_values(conversation), turns)], texts=texts)

    def rename(self, session: str, title: str) -> None:
        """Give a session another title. Raises `SessionBusyError` when it is open in another ktchat."""
        self._refuse_busy(session, "The session was not renamed")
        self.database.write(
            [("UPDATE sessions SET title = ? WHERE id = ?", (storable(title), session))]
        )

    def delete(self, session: str) -> None:
        """Delete a session; `restore` brings it back until it is purged.

        Raises `SessionBusyError` when it is open in another ktchat.
        """
        self._refuse_busy(session, "The session was not deleted")
        self.database.write(
            [("UPDATE sessions SET deleted = ? WHERE id = ?", (time.time(), session))]
        )

    def _refuse_busy(self, session: str, what: str) -> None:
        if not self.locks.is_free(session):
            raise SessionBusyError(what, "It is open in another ktchat", "Close it there first")

    def remove(self, session: str) -> None:
        """Remove a session for good. Raises `SessionBusyError` like `delete`."""
        self.delete(session)
        self.database.write(statements.removing("SELECT ?", (session,), self.search.indexed))
        self._forget_kv()

    def restore(self, session: str) -> None:
        """Bring back a session that was deleted and not yet purged."""
        self.database.write([("UPDATE sessions SET deleted = NULL WHERE id = ?", (session,))])

    def purge(self, older_than: float = UNDO_SECONDS) -> None:
        """Remove for good what was deleted more than `older_than` seconds ago."""
        self.locks.sweep()
        gone = "SELECT id FROM sessions WHERE deleted IS NOT NULL AND deleted <= ?"
        before = (time.time() - older_than,)
        if self.database.query(f"{gone} LIMIT 1", before):
            self.database.write(statements.removing(gone, before, self.search.indexed))
            self._forget_kv()

    def settle_interrupted(self) -> None:
        """Replies that were being written when their program ended are interrupted; in sessions that are open
        nowhere, the others are their programs' business."""
        rows = self.database.query("SELECT id, session FROM turns WHERE state = 'streaming'")
        for turn, session in ((str(row["id"]), str(row["session"])) for row in rows):
            if not self.locks.holds(session) and self.locks.is_free(session):
                change = (
                    "UPDATE turns SET state = 'interrupted' WHERE id = ? AND state = 'streaming'"
                )
                added = [search_index.after_saving(turn)] * self.search.indexed
                self.database.write([(change, (turn,)), *added])

    def _forget_kv(self) -> None:
        """Of sessions that are gone nothing stays that no other one has."""
        rows = self.database.query("SELECT id FROM sessions")
        self.kv.forget_sessions(all_but=[str(row["id"]) for row in rows])

    # Drafts: what stands in the prompt box and was not sent.

    def draft(self, session: str) -> Draft:
        """What stands in the prompt of a session, with what is attached to it."""
        with self.database.lock:
            rows = self.database.query("SELECT * FROM drafts WHERE session = ?", (session,))
            if not rows:
                return Draft()
            texts = self._texts_of(session) if has_attachments(rows[0]) else {}
        return draft_from(rows[0], texts)

    def orphan_draft(self) -> tuple[str, Draft] | None:
        """Session id and draft of a session that never began and is open nowhere."""
        rows = self.database.query(
            "SELECT session FROM drafts"
            " WHERE session NOT IN (SELECT id FROM sessions) ORDER BY updated DESC LIMIT 20"
        )
        free = (str(row["session"]) for row in rows if self.locks.is_free(str(row["session"])))
        session = next(free, None)
        return (session, self.draft(session)) if session is not None else None

    # The file.

    def claim(self, session: str) -> bool:
        """Hold a session for this process; False when another ktchat has it open.

        Where no lock can be made (a read-only folder) nothing can be written either: True.
        """
        try:
            return self.locks.acquire(session)
        except OSError:
            return True

    def close(self) -> None:
        """Close the file and let go of every session."""
        with self.database.lock:
            self.database.close()
            self.locks.release_all()
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None


__all__ = ["UNDO_SECONDS", "SessionSummary", "Store", "StoreError", "StoreVersionError"]
