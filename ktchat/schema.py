"""The database file of the saved sessions: opening, its schema, its versions, its repair.

Knows the tables. Knows nothing of conversations: `store.py` puts them in and takes them out.
SQLite before 3.51.3 can lose writes of two connections in WAL mode; the rollback journal with
synchronous=FULL is used instead.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ktchat.errors import StoreVersionError
from ktchat.paths import private_folder

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
]
"""Scripts from one version to the next; the schema's version is how many have run."""

_TABLES = ("sessions", "turns", "drafts")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken (and not the disk, a lock or a permission)."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database, at the present version of its schema.

    Raises `OSError`, `sqlite3.Error`, or `StoreVersionError` for a file of a newer version.
    """
    private_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


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


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = _version(db)
    if version > len(MIGRATIONS):
        raise StoreVersionError(
            "The saved sessions cannot be opened",
            f"{path} was written by a newer ktchat (version {version} of the file; this one"
            f" knows {len(MIGRATIONS)})",
            "Update ktchat, or set KTCHAT_HOME to another folder",
        )
    if version == len(MIGRATIONS):
        return
    if version > 0:
        _back_up(db, path.with_name(f"{path.name}.v{version}-backup"))
    with transaction(db):
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


def is_sound(path: Path) -> bool:
    """Whether the file can be read from end to end. Raises `OSError` or `sqlite3.Error` if it is
    not damage that stands in the way."""
    try:
        db = connect(path)
        try:
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return False
        raise


def repair(path: Path) -> tuple[Path, int]:
    """Move a damaged database aside and start a new one with every row that can still be read.

    Returns where the damaged file is kept and how many sessions were recovered. Raises `OSError`
    or `sqlite3.Error` when no new file can be made.
    """
    aside = _free_name(path)
    path.rename(aside)
    journal = path.with_name(path.name + "-journal")
    if journal.exists():
        journal.rename(aside.with_name(aside.name + "-journal"))
    new = connect(path)
    try:
        rows = {table: list(_readable_rows(aside, table)) for table in _TABLES}
        new.execute("PRAGMA foreign_keys = OFF")
        with transaction(new):
            for table in _TABLES:
                _insert(new, table, rows[table])
            for statement in _MEND:
                new.execute(statement)
        count = int(new.execute("SELECT count(*) FROM sessions").fetchone()[0])
    finally:
        new.close()
    return aside, count


def _free_name(path: Path) -> Path:
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (path.with_name(stem if n == 1 else f"{stem}-{n}") for n in range(1, 1000))
    return next(name for name in names if not name.exists())


def _readable_rows(path: Path, table: str) -> Iterator[dict[str, object]]:
    """The rows of a table in a damaged file, up to the first that cannot be read, both ways."""
    for order in ("ASC", "DESC"):
        try:
            old = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        except sqlite3.Error:
            return
        old.row_factory = sqlite3.Row
        old.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            for row in old.execute(f"SELECT * FROM {table} NOT INDEXED ORDER BY rowid {order}"):
                yield dict(row)
        except sqlite3.Error:
            continue
        else:
            return
        finally:
            old.close()


def _insert(db: sqlite3.Connection, table: str, rows: list[dict[str, object]]) -> None:
    columns = [str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")]
    marks = ", ".join("?" * len(columns))
    for row in rows:
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.InterfaceError):
            db.execute(
                f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})",
                [row.get(column) for column in columns],
            )


_MEND = (
    # Turns whose session was lost get one; links to turns that were lost are cut.
    "INSERT OR IGNORE INTO sessions (id, title, created, updated, model_path, model_name, system)"
    " SELECT session, 'Recovered session', min(created), max(created), '', max(model), ''"
    " FROM turns WHERE session NOT IN (SELECT id FROM sessions) GROUP BY session",
    "UPDATE turns SET parent = NULL WHERE parent NOT IN (SELECT id FROM turns)",
    "UPDATE sessions SET head = NULL WHERE head NOT IN (SELECT id FROM turns)",
    "UPDATE sessions SET head = (SELECT id FROM turns WHERE session = sessions.id"
    " ORDER BY created DESC LIMIT 1) WHERE head IS NULL",
)
