"""The statements that write sessions, turns and drafts, and keep the index of words in step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from ktchat.attachments.attachment import Attachment, Draft
from ktchat.store import attached, search_index
from ktchat.store.attached import TEXT_COLUMNS
from ktchat.store.records import SESSION_COLUMNS, TURN_COLUMNS, storable
from ktchat.store.search_index import Statement

Rows = tuple[tuple[Any, ...], list[tuple[Any, ...]]]
"""A session's row and the rows of some of its turns, ready to be written."""

_FIXED = ("id", "session", "parent", "created")


def saving(
    rows: Iterable[Rows],
    drafts: Iterable[tuple[str, Draft]],
    texts: Iterable[tuple[str, Attachment]],
    indexed: bool,
) -> list[Statement]:
    """What writes sessions with some of their turns, drafts, and texts of attachments by session.

    `indexed`: there is an index.
    """
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
    work += [_text(session, attachment) for session, attachment in texts]
    for session_id, draft in drafts:
        work += [_draft(session_id, draft), (_FORGET_TEXTS, (session_id,))]
    return work


def removing(sessions: str, values: Sequence[Any], indexed: bool) -> list[Statement]:
    """What removes the sessions whose ids this SQL finds with these values."""
    return [
        *[search_index.before_removing(sessions, values)] * indexed,
        (f"DELETE FROM drafts WHERE session IN ({sessions})", values),
        (f"DELETE FROM texts WHERE session IN ({sessions})", values),
        (f"DELETE FROM sessions WHERE id IN ({sessions})", values),
    ]


def _upsert(table: str, columns: Sequence[str]) -> str:
    update = ", ".join(f"{c} = excluded.{c}" for c in columns if c not in _FIXED)
    marks = ", ".join("?" * len(columns))
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        f" ON CONFLICT (id) DO UPDATE SET {update}"
    )


_FORGET_TEXTS = (
    "DELETE FROM texts WHERE session = ?"
    " AND NOT EXISTS (SELECT 1 FROM turns o WHERE o.session = texts.session AND instr(o.attachments, hash))"
    " AND NOT EXISTS (SELECT 1 FROM drafts o WHERE o.session = texts.session AND instr(o.attachments, hash))"
)
"""What no turn and no draft of a session names any more."""


def _text(session: str, attachment: Attachment) -> Statement:
    (row,) = attached.text_rows(session, [attachment])
    names = ", ".join(TEXT_COLUMNS)
    return f"INSERT OR IGNORE INTO texts ({names}) VALUES (?, ?, ?, ?)", row


def _draft(session: str, draft: Draft) -> Statement:
    if not draft.text and not draft.attachments:
        return "DELETE FROM drafts WHERE session = ?", (session,)
    columns = ("session", "text", "updated", "attachments")
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    return (
        f"INSERT INTO drafts ({', '.join(columns)}) VALUES (?, ?, ?, ?)"
        f" ON CONFLICT (session) DO UPDATE SET {changes}",
        (session, storable(draft.text), time.time(), attached.column(draft.attachments)),
    )
