"""The database file: opened when it is needed, and repaired when it proves damaged.

It executes SQL and knows nothing of sessions.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ktchat.common import paths
from ktchat.common.errors import StoreError, reason_of
from ktchat.store import schema, search_index
from ktchat.store.locks import Locks
from ktchat.store.repair import is_sound, repair
from ktchat.store.search_index import Statement

T = TypeVar("T")


class Database:
    """The file at `path`. It is opened at the first use, and again after a failure.

    Methods raise `StoreError` when the file cannot be read or written. `notices` collects what the
    person should know about the file itself (a repair, that others could read it).
    """

    def __init__(self, path: Path, locks: Locks) -> None:
        self.path = path
        self.notices: list[str] = []
        self.lock = threading.RLock()
        """Hold it where several calls belong together."""
        self._locks = locks
        self._db: sqlite3.Connection | None = None

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows that a statement finds."""
        return self._run(lambda db: db.execute(sql, values).fetchall())

    def write(self, work: Iterable[Statement]) -> None:
        """Execute statements in one transaction."""
        items = list(work)

        def write(db: sqlite3.Connection) -> None:
            with schema.transaction(db):
                for sql, values in items:
                    db.execute(sql, values)

        self._run(write)

    def renew_index(self) -> None:
        """Empty the index of words."""

        def renew(db: sqlite3.Connection) -> None:
            with schema.transaction(db):
                search_index.renew(db)

        self._run(renew)

    def check(self) -> None:
        """Read the file from end to end, and repair it if it proves damaged."""

        def check(db: sqlite3.Connection) -> None:
            if not is_sound(self.path):
                raise schema.DamagedFileError

        self._run(check)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self.lock:
            if self._db is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
                self._db = None

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` on the database; once more after a repair if the file proves damaged."""
        with self.lock:
            try:
                return self._attempt(work)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not schema.is_damage(error):
                    self.close()
                    raise self._failure(error) from error
            except OSError as error:
                raise self._failure(error) from error
            try:
                self._repair()
                return self._attempt(work)
            except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
                self.close()
                raise self._failure(error) from error

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._db is None:
            self._db = schema.connect(self.path)
            self.notices += paths.tightened()
        return work(self._db)

    def _repair(self) -> None:
        """Once for all instances: the others find the new file."""
        self.close()
        with self._locks.hold("repair"):
            if is_sound(self.path):
                return
            aside, count = repair(self.path)
        self.notices.append(
            f"The file of saved sessions was damaged. {count} sessions were recovered;"
            f" the damaged file is kept as {aside}."
        )

    def _failure(self, error: OSError | sqlite3.Error | UnicodeDecodeError) -> StoreError:
        why, todo = reason_of(error)
        return StoreError("The sessions cannot be saved", f"{self.path}: {why}", todo)
