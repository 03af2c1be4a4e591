"""A session as a file for other programs and other people: Markdown to read, JSON to keep."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from typing import Any

from ktchat import __version__
from ktchat.common.text import sanitise
from ktchat.common.words import figures
from ktchat.store.attached import exported
from ktchat.store.conversation import Conversation, Turn, TurnState

_STATES = {
    TurnState.STREAMING: "still being written",
    TurnState.STOPPED: "stopped",
    TurnState.INTERRUPTED: "interrupted",
    TurnState.FAILED: "failed",
}


def to_markdown(conversation: Conversation, *, thinking: bool = False) -> str:
    """The conversation as Markdown; safe to print on a terminal."""
    lines = [f"# {conversation.shown_title}", ""]
    lines += [f"{written(conversation.created)} · {conversation.model_name or 'no model'}", ""]
    if conversation.system.strip():
        lines += ["## System", "", conversation.system.strip(), ""]
    for turn in conversation.turns:
        lines += _turn_lines(turn, thinking)
    return "\n".join(lines).rstrip() + "\n"


def to_json(
    conversation: Conversation,
    replaced: Iterable[Turn] = (),
    facts: dict[str, Any] | None = None,
) -> str:
    """Everything that is known of the session, as JSON (ASCII only); `facts` are of the model's file. `program` is the
    version of the engine too. `order` is that in which the turns of the whole tree were written."""
    replaced = list(replaced)
    tree = sorted((*conversation.turns, *replaced), key=lambda turn: turn.number)
    orders = {id(turn): order for order, turn in enumerate(tree)}
    data = {
        "format": "ktchat-session",
        "version": 1,
        "program": f"ktchat {__version__}",
        "id": conversation.id,
        "title": conversation.title,
        "created": conversation.created,
        "updated": conversation.updated,
        "model": {"name": conversation.model_name, "path": conversation.model_path} | (facts or {}),
        "system": conversation.system,
        "think": conversation.think,
        "choices": conversation.choices,
        "turns": [_turn_data(turn, orders[id(turn)]) for turn in conversation.turns],
        "replaced": [_turn_data(turn, orders[id(turn)]) for turn in replaced],
    }
    return json.dumps(data, indent=2, ensure_ascii=True) + "\n"


def _turn_lines(turn: Turn, thinking: bool) -> list[str]:
    lines = ["## You", "", sanitise(turn.message).strip(), "", *_hashes(turn)]
    lines += [f"## {turn.model or 'Model'}", ""]
    if thinking and turn.thinking.strip():
        lines += [*("> " + line for line in turn.thinking.strip().splitlines()), ""]
    if turn.reply.strip():
        lines += [turn.reply.strip(), ""]
    if said := notes(turn):
        lines += [f"*[ktchat: {' · '.join(said)}]*", ""]
    return lines


def _hashes(turn: Turn) -> list[str]:
    """What was attached, by its SHA-256."""
    known = [f"{item.name}: SHA-256 {item.sha256}" for item in turn.attachments if item.sha256]
    return [f"*{' · '.join(known)}*", ""] if known else []


def notes(turn: Turn) -> list[str]:
    """How a reply ended, and its figures, in words that are safe to draw."""
    said = [_STATES[turn.state]] if turn.state in _STATES else []
    if turn.error is not None:
        said.append(str(turn.error))
    if turn.edited is not None:
        said.append("the reply was changed by hand")
    elif turn.figures is not None:
        said.append(figures(turn.figures))
    return said


def _turn_data(turn: Turn, order: int) -> dict[str, Any]:
    return {
        "order": order,
        "id": turn.id,
        "parent": turn.parent,
        "created": turn.created,
        "state": turn.state,
        "reason": turn.reason,
        "model": turn.model,
        "prompt": turn.raw_prompt,
        "thinking": turn.raw_thinking,
        "reply": turn.raw_reply,
        "edited": turn.edited,
        "sampling": dataclasses.asdict(turn.sampling),
        "max_tokens": turn.max_tokens,
        "figures": dataclasses.asdict(turn.figures) if turn.figures else None,
        "error": turn.error.to_dict() if turn.error else None,
        "compaction": dataclasses.asdict(turn.compaction) if turn.compaction else None,
        "attachments": exported(turn.attachments),
    }


def written(unix: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix))
    except (OverflowError, ValueError, OSError):
        return "unknown time"
