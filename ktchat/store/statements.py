"""The statements that write sessions, turns and drafts, and keep the index of words in step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from ktchat.store import search_index
from ktchat.store.records import SESSION_COLUMNS, TURN_COLUMNS, storable
from ktchat.store.search_index import Statement

Rows = tuple[tuple[Any, ...], list[tuple[Any, ...]]]
"""A session's row and the rows of some of its turns, ready to be written."""

_FIXED = ("id", "session", "parent", "created")


def saving(
    rows: Iterable[Rows], drafts: Iterable[tuple[str, str]], indexed: bool
) -> list[Statement]:
    """What writes sessions with some of their turns, and drafts. `indexed`: there is an index."""
    session, turn = _upsert("sessions", SESSION_COLUMNS), _upsert("turns", TURN_COLUMNS)
    work: list[Statement] = []
    for session_row, turn_rows in rows:
        work.append((session, session_row))
        for row in turn_rows:
            values = dict(zip(TURN_COLUMNS, row, strict=True))
            changes = (values[name] for name in ("id", "prompt", "reply", "state"))
            work += [search_index.before_saving(*changes)] * indexed
            work.append((turn, row))
            work += [search_index.after_saving(values["id"])] * indexed
    return work + [_draft(session, text) for session, text in drafts]


def removing(sessions: str, values: Sequence[Any], indexed: bool) -> list[Statement]:
    """What removes the sessions whose ids this SQL finds with these values."""
    return [
        *[search_index.before_removing(sessions, values)] * indexed,
        (f"DELETE FROM drafts WHERE session IN ({sessions})", values),
        (f"DELETE FROM sessions WHERE id IN ({sessions})", values),
    ]


def _upsert(table: str, columns: Sequence[str]) -> str:
    update = ", ".join(f"{c} = excluded.{c}" for c in columns if c not in _FIXED)
    marks = ", ".join("?" * len(columns))
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        f" ON CONFLICT (id) DO UPDATE SET {update}"
    )


def _draft(session: str, text: str) -> Statement:
    if not text:
        return "DELETE FROM drafts WHERE session = ?", (session,)
    return (
        "INSERT INTO drafts (session, text, updated) VALUES (?, ?, ?)"
        " ON CONFLICT (session) DO UPDATE SET text = excluded.text, updated = excluded.updated",
        (session, storable(text), time.time()),
    )
