"""Repairs a damaged database: a new file gets every row that can still be read."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from ktchat.common.paths import tighten
from ktchat.store import pages, search_index
from ktchat.store.attached import is_hash
from ktchat.store.schema import (
    TABLES,
    connect,
    is_damage,
    our_columns,
    transaction,
)


def is_sound(path: Path) -> bool:
    """Whether the file can be read from end to end and has our tables.

    Raises `OSError` or `sqlite3.Error` if something else than damage stands in the way.
    """
    try:
        with contextlib.closing(connect(path)) as db:  # raises for columns that are not ours
            whole: bool = db.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
            search_index.check(db)
            return whole
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
    _keep_as(path, aside)
    journal = path.with_name(path.name + "-journal")
    if journal.exists():  # it must not be played back into the new file
        kept = journal.rename(aside.with_name(aside.name + "-journal"))
        tighten(kept)
    new.replace(path)
    return aside, count


def _keep_as(path: Path, aside: Path) -> None:
    """A second name for a file, or a copy: there is no moment in which the first one names nothing."""
    try:
        aside.hardlink_to(path)
    except OSError:
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        shutil.copyfile(path, aside)
    tighten(aside)


def _recover(path: Path, new: Path) -> int:
    """Copy what can be read; the number of sessions."""
    with contextlib.closing(connect(new)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        with transaction(db):
            for table, rows in _readable_rows(path).items():
                _insert(db, table, rows)
            for statement in _MEND:
                db.execute(statement)
            search_index.renew(db)  # it is filled again in the background
        return int(db.execute("SELECT count(*) FROM sessions").fetchone()[0])


def _free_name(path: Path) -> Path:
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (path.with_name(stem if n == 1 else f"{stem}-{n}") for n in range(1, 1000))
    return next(name for name in names if not name.exists())


_FIRST_COLUMNS = {"sessions": 9, "turns": 14, "drafts": 3, "texts": 4}
"""How many the first version had; a row of an older file has fewer than today's."""


def _readable_rows(path: Path) -> dict[str, list[list[pages.Value]]]:
    """What can be read of each table, in the order in which it was written."""
    most = {table: len(columns) for table, columns in our_columns().items()}
    found: dict[str, list[pages.Row]] = {table: [] for table in TABLES}
    for number, values in pages.rows(path):
        for table in TABLES:
            is_id = bool(values) and isinstance(values[0], str) and values[0] != ""
            if is_id and _FIRST_COLUMNS[table] <= len(values) <= most[table]:
                is_text = len(values) == 4 and is_hash(values[1])
                if is_text == (table == "texts"):
                    found[table].append((number, values))
    return {
        table: [values for _, values in sorted(rows, key=lambda row: row[0])]
        for table, rows in found.items()
    }


def _insert(db: sqlite3.Connection, table: str, rows: Iterable[list[pages.Value]]) -> None:
    count = len(our_columns()[table])
    sql = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * count)})"
    for row in rows:
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError):
            db.execute(sql, row + [None] * (count - len(row)))


_MEND = (
    # Turns whose session was lost get one; links to turns that were lost are cut.
    "INSERT OR IGNORE INTO sessions (id, title, created, updated, model_path, model_name, system)"
    " SELECT session, 'Recovered session', min(created), max(created), '', max(model), ''"
    " FROM turns WHERE session NOT IN (SELECT id FROM sessions) GROUP BY session",
    "DELETE FROM texts WHERE session NOT IN (SELECT id FROM sessions UNION SELECT session FROM drafts)",
    "UPDATE turns SET parent = NULL WHERE parent NOT IN (SELECT id FROM turns)",
    "UPDATE sessions SET head = NULL WHERE head NOT IN (SELECT id FROM turns)",
    "UPDATE sessions SET head = (SELECT id FROM turns WHERE session = sessions.id"
    " ORDER BY created DESC LIMIT 1) WHERE head IS NULL",
)
