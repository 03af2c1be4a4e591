"""Sessions in our own JSON, checked as they are read: they may come from anywhere."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import KtchatError
from ktchat.common.setting_values import PER_SESSION, chosen
from ktchat.common.text import one_line
from ktchat.store.attached import imported
from ktchat.store.conversation import Conversation, Turn, TurnState
from ktchat.store.foreign import MAX_NODES, MalformedError, items, moment, optional, string
from ktchat.store.records import turn_from


def own_session(data: dict[str, Any]) -> Conversation:
    """The session in our own JSON (`store.export`). Raises `MalformedError`."""
    if data.get("version") != 1:
        raise MalformedError("it was written by a newer ktchat")
    model = data.get("model") if isinstance(data.get("model"), dict) else {}
    shown = [_own_turn(item) for item in items(data, "turns")]
    others = [_own_turn(item) for item in items(data, "replaced")]
    _in_order(shown, others)
    think = data.get("think")
    return Conversation(
        title=one_line(optional(data, "title")),
        created=moment(data.get("created")),
        updated=moment(data.get("updated")),
        model_name=one_line(optional(model or {}, "name")),
        system=optional(data, "system"),
        think=think if think in ("off", "on", "low", "medium", "high", "max") else None,
        choices=chosen(data.get("choices"), PER_SESSION)[0],
        turns=[turn for _, turn in shown],
        others=[turn for _, turn in others],
    )


def _own_turn(item: dict[str, Any]) -> tuple[int, Turn]:
    row: dict[str, Any] = {
        name: string(item, name) for name in ("id", "prompt", "thinking", "reply")
    }
    row |= {name: optional(item, name) for name in ("state", "reason", "model")}
    row["parent"] = optional(item, "parent") or None
    row["created"], row["edited"] = moment(item.get("created")), moment(item.get("edited")) or None
    tokens = item.get("max_tokens")
    row["max_tokens"] = tokens if type(tokens) is int and 0 < tokens < 1 << 31 else None
    for name in ("sampling", "figures", "error", "compaction"):
        value = item.get(name)
        row[name] = json.dumps(value) if isinstance(value, dict) else None
    try:
        turn = turn_from(row)
        turn.attachments = imported(item.get("attachments"))
    except (KtchatError, TypeError, ValueError) as error:
        raise MalformedError(f"a turn cannot be read: {error}") from error
    if turn.state == TurnState.STREAMING:
        turn.state = TurnState.INTERRUPTED
    order = item.get("order")
    return order if type(order) is int else 0, turn


def _in_order(shown: list[tuple[int, Turn]], others: list[tuple[int, Turn]]) -> None:
    """Check that the turns are a tree, and number them in the order in which they were written."""
    turns = [turn for _, turn in (*shown, *others)]
    by_id = {turn.id: turn for turn in turns}
    if len(turns) > MAX_NODES or len(by_id) < len(turns):
        raise MalformedError("two of its turns have the same id")
    if any(turn.parent is not None and turn.parent not in by_id for turn in turns):
        raise MalformedError("a turn follows one that is not there")
    before: str | None = None
    for _, turn in shown:
        if turn.parent != before:
            raise MalformedError("its turns do not follow each other")
        before = turn.id
    seen: set[str | None] = {None}
    children: dict[str | None, list[Turn]] = {}
    for turn in turns:
        children.setdefault(turn.parent, []).append(turn)
    waiting: list[str | None] = [None]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            seen.add(child.id)
            waiting.append(child.id)
    if len(seen) <= len(turns):
        raise MalformedError("its turns follow each other in a circle")
    numbers = sorted(turn.number for turn in turns)
    ordered = sorted((*shown, *others), key=lambda item: item[0])
    for number, (_, turn) in zip(numbers, ordered, strict=True):
        turn.number = number
