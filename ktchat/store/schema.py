"""The schema of the database: its tables, its versions, and how the file is opened.

SQLite before 3.51.3 can lose writes of two connections in WAL mode; the rollback journal with
synchronous=EXTRA is used instead. With FULL the removal of the journal, which is what commits, may
not outlive a power loss.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ktchat.common.errors import StoreVersionError
from ktchat.common.paths import private_folder, tighten
from ktchat.store import search_index

BUSY_SECONDS = 5.0

MIGRATIONS: list[str] = [
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY NOT NULL,
        title TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        model_path TEXT NOT NULL,
        model_name TEXT NOT NULL,
        system TEXT NOT NULL,
        head TEXT,      -- the last turn shown; the others follow from turns.parent
        deleted REAL    -- when it was deleted; NULL: it was not
    );
    CREATE TABLE turns (
        id TEXT PRIMARY KEY NOT NULL,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        parent TEXT REFERENCES turns (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        created REAL NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        prompt TEXT NOT NULL,
        thinking TEXT NOT NULL,
        reply TEXT NOT NULL,
        model TEXT NOT NULL,
        sampling TEXT NOT NULL,  -- JSON
        max_tokens INTEGER,
        figures TEXT,            -- JSON
        error TEXT               -- JSON
    );
    CREATE INDEX turns_of_session ON turns (session);
    CREATE INDEX turns_of_parent ON turns (parent);
    CREATE INDEX turns_by_time ON turns (created);
    CREATE TABLE drafts (
        session TEXT PRIMARY KEY NOT NULL,  -- of a session that may not be saved yet
        text TEXT NOT NULL,
        updated REAL NOT NULL
    );
    """,
    """
    ALTER TABLE sessions ADD COLUMN think TEXT;  -- NULL: as the model's template has it
    """,
    """
    ALTER TABLE turns ADD COLUMN edited REAL;  -- when its reply was changed by hand; NULL: it was not
    """,
    """
    ALTER TABLE turns ADD COLUMN compaction TEXT;     -- JSON; NULL: as at the turn before
    ALTER TABLE sessions ADD COLUMN compaction TEXT;  -- JSON: chosen for the next message
    """,
    """
    ALTER TABLE sessions ADD COLUMN choices TEXT;  -- JSON: sampling and the like; NULL: none
    """,
    """
    ALTER TABLE turns ADD COLUMN attachments TEXT;   -- JSON, without the texts; NULL: nothing is attached
    ALTER TABLE drafts ADD COLUMN attachments TEXT;  -- the same
    CREATE TABLE texts (
        session TEXT NOT NULL,  -- of a session that may not be saved yet
        hash TEXT NOT NULL,     -- SHA-256 of the text, in hexadecimal digits
        text TEXT NOT NULL,     -- of an attachment, as the model reads it
        size INTEGER NOT NULL,  -- its characters
        PRIMARY KEY (session, hash)
    );
    """,
]
"""Scripts from one version to the next; the schema's version is how many have run."""

TABLES = ("sessions", "turns", "drafts", "texts")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def is_damage(error: sqlite3.Error | UnicodeDecodeError) -> bool:
    """Whether the file itself is broken (and not the disk, a lock or a permission).

    A statement that does not fit the tables, and a table whose name is no text, are damage too:
    ours fit the tables that we made.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database, at the present version of its schema.

    What can be read but not written is opened for reading. Raises `OSError`, `sqlite3.Error`, or `StoreVersionError` for a file of a newer version.
    """
    try:
        private_folder(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        tighten(path)
        address, writable = path.absolute().as_uri(), True
    except OSError:
        if not os.access(path, os.R_OK):
            raise
        address, writable = f"{path.absolute().as_uri()}?mode=ro", False  # to be read at least
    db = sqlite3.connect(
        address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    db.row_factory = sqlite3.Row
    db.text_factory = lenient_text
    try:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        _migrate(db, path, writable)
        if writable and not has_our_columns(db):
            raise DamagedFileError("its tables are not ours")
        if writable:
            search_index.ensure(db)
    except BaseException:
        db.close()
        raise
    return db


class DamagedFileError(sqlite3.DatabaseError):
    """Damage that SQLite does not see by itself: other columns, or an index that lost entries."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def has_our_columns(db: sqlite3.Connection) -> bool:
    """Whether the tables have the columns of the present version, in their order."""
    return all(_columns_of(db, table) == ours for table, ours in our_columns().items())


def our_columns() -> dict[str, list[str]]:
    """The columns of each table at the present version."""
    return _columns_after(tuple(MIGRATIONS))


def _columns_of(db: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")]


@cache
def _columns_after(scripts: tuple[str, ...]) -> dict[str, list[str]]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        run_migrations(db)
        return {table: _columns_of(db, table) for table in TABLES}


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is executed inside is written, or none of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def lenient_text(data: bytes) -> str:
    """Text of a column; a damaged file may hold bytes that are none."""
    return data.decode("utf-8", "replace")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(db: sqlite3.Connection, path: Path, writable: bool) -> None:
    version = _version(db)
    if version > len(MIGRATIONS):
        raise StoreVersionError(
            "The saved sessions cannot be opened",
            f"{path} was written by a newer ktchat (version {version} of the file; this one"
            f" knows {len(MIGRATIONS)})",
            "Update ktchat, or set KTCHAT_HOME to another folder",
        )
    if version == len(MIGRATIONS) or (version > 0 and not writable):
        return  # what is only read may be of an older version
    if version > 0:
        _back_up(db, path.with_name(f"{path.name}.v{version}-backup"))
    with transaction(db):
        try:
            run_migrations(db)
        except sqlite3.OperationalError as error:
            if version == 0 or getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
                raise
            raise StoreVersionError(
                "The saved sessions cannot be opened",
                f"{path} could not be brought from version {version} to {len(MIGRATIONS)}: {error}",
                "It was left as it is; set KTCHAT_HOME to another folder to go on without it",
            ) from error


def run_migrations(db: sqlite3.Connection) -> None:
    """Bring a database to the present version."""
    for number in range(_version(db), len(MIGRATIONS)):  # another instance may have been here
        for statement in _statements(MIGRATIONS[number]):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {number + 1}")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _back_up(db: sqlite3.Connection, path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    copy = sqlite3.connect(path)
    try:
        db.backup(copy)
    finally:
        copy.close()
