"""The index of all turns' words: trigrams in SQLite's FTS5, changed in the transaction that changes a turn.

It follows from the turns, so that it is no part of the schema's versions: where it is missing, or this SQLite
cannot read it, it is made anew, empty, and filled in steps from the newest turn on. A reply that is being
written is not in it. Triggers are not used, since FTS5 refuses them where the schema is not trusted.
Source of the syntax: sqlite.org/fts5.html.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any

Statement = tuple[str, Sequence[Any]]
"""SQL and its values."""

BATCH = 200
"""Turns that one step adds: tens of ms."""

_CREATE = (
    "CREATE TABLE search_state (behind INTEGER NOT NULL)",  # turns up to this rowid are not in it yet
    "INSERT INTO search_state SELECT coalesce(max(rowid), 0) FROM turns",
    # Every pair of characters is the beginning of a trigram.
    "CREATE VIEW search_texts AS SELECT rowid AS id, turns.id AS turn, session, state,"
    " prompt || char(10) || reply || char(10, 10) AS text FROM turns",
    "CREATE VIRTUAL TABLE search USING fts5 (text, content = 'search_texts', content_rowid = 'id',"
    " tokenize = 'trigram', detail = none)",
    "CREATE VIRTUAL TABLE search_terms USING fts5vocab (search, row)",
    "CREATE INDEX turns_streaming ON turns (session) WHERE state = 'streaming'",
)
_DROP = (
    "DROP INDEX IF EXISTS turns_streaming",
    "DROP TABLE IF EXISTS search_state",
    "DROP TABLE IF EXISTS search_terms",
    "DROP TABLE IF EXISTS search",
    "DROP VIEW IF EXISTS search_texts",
)

_THERE = "EXISTS (SELECT 1 FROM search_docsize d WHERE d.id = s.id)"
_REMOVE = "INSERT INTO search (search, rowid, text) SELECT 'delete', s.id, s.text FROM search_texts s WHERE "
_ADD = (
    "INSERT INTO search (rowid, text) SELECT s.id, s.text FROM search_texts s"
    f" WHERE s.state <> 'streaming' AND NOT {_THERE} AND "
)
ADD_MORE: tuple[Statement, ...] = (
    (
        f"{_ADD} s.id <= (SELECT behind FROM search_state)"
        " AND s.id > (SELECT behind FROM search_state) - ?",
        (BATCH,),
    ),
    ("UPDATE search_state SET behind = max(0, behind - ?)", (BATCH,)),
)
"""The newest turns that are not in the index go into it."""

DIFFERS = (
    "SELECT (SELECT count(*) FROM search_docsize) + (SELECT behind FROM search_state)"
    " + (SELECT count(*) FROM turns WHERE state = 'streaming')"
    " < (SELECT count(*) FROM turns) AS differs"
)
"""Whether turns are missing in the index, as one can tell by counting."""


def before_saving(turn: str, prompt: str, reply: str, state: str) -> Statement:
    """To be executed before a turn is written with these values: what is to change leaves the index."""
    changes = "(s.text <> ? || char(10) || ? || char(10, 10) OR ? = 'streaming')"
    return f"{_REMOVE} s.turn = ? AND {_THERE} AND {changes}", (turn, prompt, reply, state)


def after_saving(turn: str) -> Statement:
    """To be executed after a turn was written: it comes into the index, if it is not there."""
    return f"{_ADD} s.turn = ? AND s.id > (SELECT behind FROM search_state)", (turn,)


def before_removing(sessions: str, values: Sequence[Any]) -> Statement:
    """To be executed before the turns of these sessions (SQL that finds ids, and its values) are removed."""
    return f"{_REMOVE} s.session IN ({sessions}) AND {_THERE}", values


def ensure(db: sqlite3.Connection) -> None:
    """Make the index where there is none that can be used. Without FTS5 and trigrams there is none: see `exists`.

    Raises `sqlite3.Error` when the file cannot be written, or is damaged.
    """
    if exists(db) and _works(db):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not (exists(db) and _works(db)):  # another instance may have been here
            renew(db)
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


EXISTS = "SELECT count(*) AS tables FROM sqlite_master WHERE name IN ('search', 'search_state')"


def exists(db: sqlite3.Connection) -> bool:
    """Whether turns are indexed in this file."""
    return int(db.execute(EXISTS).fetchone()[0]) == 2


def check(db: sqlite3.Connection) -> None:
    """Raise `sqlite3.Error` when the index contradicts itself."""
    if exists(db):
        db.execute("INSERT INTO search (search) VALUES ('integrity-check')")


def renew(db: sqlite3.Connection) -> None:
    """An empty index, or none where this SQLite has no such thing. Inside a transaction."""
    db.execute("SAVEPOINT renew")
    try:
        for statement in (*_DROP, *_CREATE):
            db.execute(statement)
    except sqlite3.OperationalError as error:
        if not _is_refusal(error):
            raise
        db.execute("ROLLBACK TO renew")  # no such module or tokenizer
        db.execute("DROP TABLE IF EXISTS search_state")  # what is there does not follow any more
    else:
        with contextlib.suppress(sqlite3.OperationalError):  # from SQLite 3.42 on
            db.execute("INSERT INTO search (search, rank) VALUES ('secure-delete', 1)")
    db.execute("RELEASE renew")


def _works(db: sqlite3.Connection) -> bool:
    """Whether this SQLite can read it (another one may have written it)."""
    try:
        db.execute("SELECT rowid FROM search WHERE search MATCH '\"abc\"' LIMIT 1").fetchone()
        return db.execute("SELECT behind FROM search_state").fetchone() is not None
    except sqlite3.OperationalError as error:
        if _is_refusal(error):
            return False
        raise


def _is_refusal(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR
