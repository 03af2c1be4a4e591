"""Repairs a damaged database: a new file gets every row that can still be read."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ktchat.store import search_index
from ktchat.store.schema import (
    TABLES,
    connect,
    is_damage,
    lenient_text,
    run_migrations,
    transaction,
)


def is_sound(path: Path) -> bool:
    """Whether the file can be read from end to end and has our tables.

    Raises `OSError` or `sqlite3.Error` if something else than damage stands in the way.
    """
    try:
        with contextlib.closing(connect(path)) as db, contextlib.closing(_empty()) as ours:
            whole = db.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
            search_index.check(db)
            return whole and all(_columns(db, name) == _columns(ours, name) for name in TABLES)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if is_damage(error):
            return False
        raise


def repair(path: Path) -> tuple[Path, int]:
    """Put a new database with every row that can still be read in the place of a damaged one.

    Returns where the damaged file is kept and how many sessions were recovered. Raises `OSError`
    or `sqlite3.Error` when no new file can be made; nothing has changed then.
    """
    new = path.with_name(f"{path.name}.repaired")
    new.unlink(missing_ok=True)
    try:
        count = _recover(path, new)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    aside = _free_name(path)
    path.rename(aside)
    journal = path.with_name(path.name + "-journal")
    if journal.exists():
        journal.rename(aside.with_name(aside.name + "-journal"))
    new.rename(path)
    return aside, count


def _recover(path: Path, new: Path) -> int:
    """Copy what can be read; the number of sessions."""
    with contextlib.closing(connect(new)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        with transaction(db):
            for table in TABLES:
                _insert(db, table, _readable_rows(path, table))
            for statement in _MEND:
                db.execute(statement)
            search_index.renew(db)  # it is filled again in the background
        return int(db.execute("SELECT count(*) FROM sessions").fetchone()[0])


def _empty() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    run_migrations(db)
    return db


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")]


def _free_name(path: Path) -> Path:
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (path.with_name(stem if n == 1 else f"{stem}-{n}") for n in range(1, 1000))
    return next(name for name in names if not name.exists())


def _readable_rows(path: Path, table: str) -> Iterator[dict[str, object]]:
    """The rows of a table in a damaged file, up to the first that cannot be read, both ways."""
    for order in ("ASC", "DESC"):
        try:
            old = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error:
            return
        old.row_factory = sqlite3.Row
        old.text_factory = lenient_text
        try:
            for row in old.execute(f"SELECT * FROM {table} NOT INDEXED ORDER BY rowid {order}"):
                yield dict(row)
        except (sqlite3.Error, UnicodeDecodeError):
            continue
        else:
            return
        finally:
            old.close()


def _insert(db: sqlite3.Connection, table: str, rows: Iterable[dict[str, object]]) -> None:
    columns = _columns(db, table)
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
