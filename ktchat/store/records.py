"""Rows of the database from sessions and turns, and back.

What is read is checked: the file may be damaged or edited by hand.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from engine.errors import KtchatError
from engine.protocol import Figures, Reason, Sampling, Think
from ktchat.common.errors import shown_error
from ktchat.common.setting_values import PER_SESSION, chosen
from ktchat.common.text import one_line, sanitise
from ktchat.store import attached
from ktchat.store.conversation import (
    TITLE_LENGTH,
    UNTITLED,
    Compaction,
    Conversation,
    Turn,
    TurnState,
)

Row = Mapping[str, Any] | sqlite3.Row
NO_TEXTS: Mapping[str, str] = {}

SESSION_COLUMNS = (
    "id", "title", "created", "updated", "model_path", "model_name", "system", "head", "think",
    "compaction", "choices",
)  # fmt: skip
TURN_COLUMNS = (
    "id", "session", "parent", "created", "state", "reason", "prompt", "thinking", "reply",
    "model", "sampling", "max_tokens", "figures", "error", "edited", "compaction", "attachments",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One line of the session list, safe to draw. Times are Unix times."""

    id: str
    title: str
    created: float
    updated: float
    model_name: str
    turns: int

    @property
    def shown_title(self) -> str:
        """The title, safe to draw on one line."""
        return one_line(self.title, TITLE_LENGTH) or UNTITLED


def session_values(conversation: Conversation) -> tuple[Any, ...]:
    """The row of a session, in the order of `SESSION_COLUMNS`."""
    last = conversation.last
    return tuple(
        storable(value)
        for value in (
            conversation.id,
            conversation.title,
            conversation.created,
            conversation.updated,
            conversation.model_path,
            conversation.model_name,
            conversation.system,
            last.id if last else None,
            conversation.think,
            _compaction_text(conversation.next_compaction, last),
            json.dumps(conversation.choices) if conversation.choices else None,
        )
    )


def turn_values(session: str, turn: Turn) -> tuple[Any, ...]:
    """The row of a turn, in the order of `TURN_COLUMNS`."""
    figures = json.dumps(dataclasses.asdict(turn.figures)) if turn.figures else None
    error = json.dumps(turn.error.to_dict()) if turn.error else None
    return tuple(
        storable(value)
        for value in (
            turn.id,
            session,
            turn.parent,
            turn.created,
            turn.state,
            turn.reason,
            turn.raw_prompt,
            turn.raw_thinking,
            turn.raw_reply,
            turn.model,
            json.dumps(dataclasses.asdict(turn.sampling)),
            turn.max_tokens,
            figures,
            error,
            turn.edited,
            _compaction_text(turn.compaction),
            attached.column(turn.attachments),
        )
    )


def storable(value: Any) -> Any:
    """`value` as SQLite takes it: lone surrogates have no UTF-8 form and become U+FFFD."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def conversation_from(
    row: Row, turns: Iterable[Row], texts: Mapping[str, str] = NO_TEXTS
) -> tuple[Conversation, list[Turn]]:
    """The conversation in the rows, and the turns that were replaced and are not shown.

    `texts` of attachments by their digests.
    """
    by_id = {str(turn["id"]): turn_from(turn, texts) for turn in turns}
    shown: list[Turn] = []
    at = str(row["head"] or "")
    if at not in by_id and by_id:
        at = max(reversed(by_id.values()), key=lambda turn: turn.created).id
    while at in by_id:
        turn = by_id.pop(at)
        shown.append(turn)
        at = turn.parent or ""
    conversation = Conversation(
        id=str(row["id"]),
        title=one_line(str(row["title"])),
        created=_time(row["created"]),
        updated=_time(row["updated"]),
        model_path=str(row["model_path"]),
        model_name=one_line(str(row["model_name"])),
        system=str(row["system"]),
        think=_THINKS.get(str(_maybe(row, "think"))),
        choices=chosen(_mapping(_maybe(row, "choices")), PER_SESSION)[0],
        turns=shown[::-1],
        others=list(by_id.values()),
    )
    following = _mapping(_maybe(row, "compaction"))
    if conversation.last is not None and following.get("after") == conversation.last.id:
        conversation.next_compaction = _compaction(following)
    return conversation, sorted(by_id.values(), key=lambda turn: turn.created)


def summary_from(row: Row) -> SessionSummary:
    """The line of the session list in a row."""
    return SessionSummary(
        id=str(row["id"]),
        title=one_line(str(row["title"])),
        created=_time(row["created"]),
        updated=_time(row["updated"]),
        model_name=one_line(str(row["model_name"])),
        turns=int(row["turns"]),
    )


def turn_from(row: Row, texts: Mapping[str, str] = NO_TEXTS) -> Turn:
    """The turn in a row; `texts` of attachments by their digests."""
    state = str(row["state"])
    reason = row["reason"]
    error = _mapping(row["error"])
    return Turn(
        id=str(row["id"]),
        parent=None if row["parent"] is None else str(row["parent"]),
        created=_time(row["created"]),
        state=_STATES.get(state, TurnState.INTERRUPTED),
        reason=_REASONS.get(str(reason)),
        raw_prompt=str(row["prompt"]),
        raw_thinking=str(row["thinking"]),
        raw_reply=str(row["reply"]),
        model=one_line(str(row["model"])),
        sampling=_sampling(_mapping(row["sampling"])),
        max_tokens=row["max_tokens"] if isinstance(row["max_tokens"], int) else None,
        figures=_figures(_mapping(row["figures"])),
        error=shown_error(KtchatError.from_dict(error)) if error else None,
        edited=_time(_maybe(row, "edited")) or None,
        compaction=_compaction(_mapping(_maybe(row, "compaction"))),
        attachments=attached.from_column(_maybe(row, "attachments"), texts),
    )


_LAST_TIME = 253402300799.0
"""The end of the year 9999."""

_MOST = 1 << 62
"""A figure that is larger was never counted."""

_STATES = {state.value: state for state in TurnState}
_REASONS: dict[str, Reason] = {reason: reason for reason in get_args(Reason)}
_THINKS: dict[str, Think] = {think: think for think in get_args(Think)}


def _maybe(row: Row, column: str) -> object:
    """A value of a column that an older file, which can only be read, does not have."""
    return row[column] if column in row.keys() else None  # noqa: SIM118


def _compaction_text(compaction: Compaction | None, after: Turn | None = None) -> str | None:
    """As JSON; `after`: the turn behind which it was chosen."""
    if compaction is None:
        return None
    place = {"after": after.id} if after is not None else {}
    return json.dumps(dataclasses.asdict(compaction) | place)


def _compaction(values: dict[str, Any]) -> Compaction | None:
    unread, summary = values.get("unread"), values.get("summary")
    if type(unread) is not int or not isinstance(summary, str) or unread < 0:
        return None
    return Compaction(unread, sanitise(summary))


def _time(value: object) -> float:
    """A Unix time that a calendar knows; 0.0 for anything else."""
    if isinstance(value, int | float) and 0 <= value <= _LAST_TIME:
        return float(value)
    return 0.0


def _mapping(text: object) -> dict[str, Any]:
    try:
        value = json.loads(str(text)) if text is not None else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _sampling(values: dict[str, Any]) -> Sampling:
    try:
        return Sampling(**values)
    except (TypeError, KtchatError):
        return Sampling()


def _figures(values: dict[str, Any]) -> Figures | None:
    """Figures of which each is a number that can be one; None where there is none."""
    numbers: dict[str, Any] = {}
    for field in dataclasses.fields(Figures):
        value, least = values.get(field.name), -_MOST if field.name == "saved_seconds" else 0
        if isinstance(value, int | float) and least <= value <= _MOST:  # what is no number is not
            numbers[field.name] = int(value) if field.type == "int" else float(value)
    return Figures(**numbers) if numbers else None
