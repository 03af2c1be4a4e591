"""The tree that a conversation's turns make, and the path through it that is shown.

Every edit, every new reply is another child of the same parent: a version of the turn. A turn is a message
and its reply, so that versions of one differ in the message, or only in the reply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ktchat.store.conversation import Conversation, Turn, TurnState, new_id

Part = Literal["prompt", "reply"]
"""Of what of a turn there are versions."""


class Place(NamedTuple):
    """Which version of how many is shown: `‹ 2/3 ›`."""

    at: int
    of: int


def all_turns(conversation: Conversation) -> list[Turn]:
    """Every turn of the tree, in the order in which they were written."""
    return sorted([*conversation.turns, *conversation.others], key=lambda turn: turn.number)


def children(conversation: Conversation, parent: str | None) -> list[Turn]:
    """What was said after a turn, in every version; None: what the conversation began with."""
    found = (t for t in (*conversation.turns, *conversation.others) if t.parent == parent)
    return sorted(found, key=lambda turn: turn.number)


def versions(conversation: Conversation, turn: Turn, part: Part) -> list[Turn]:
    """The versions of a turn's message (one turn for each: this one, or the newest with it), or of the reply
    to this very message. Attempts that brought nothing are none, unless it is this one."""
    siblings = [
        other
        for other in children(conversation, turn.parent)
        if other is turn or _said_something(other)
    ]
    if part == "reply":
        return [other for other in siblings if other.draft == turn.draft]
    newest = {other.draft: other for other in siblings}
    return [turn if draft == turn.draft else other for draft, other in newest.items()]


def place(conversation: Conversation, turn: Turn, part: Part) -> Place:
    """Where a turn is among its versions, from 1 on."""
    listed = versions(conversation, turn, part)
    at = next((i for i, other in enumerate(listed, 1) if other is turn), 0)
    return Place(at, len(listed)) if at else Place(1, 1)


def neighbour(conversation: Conversation, turn: Turn, part: Part, step: int) -> Turn | None:
    """The version so many steps further; None: there is none."""
    listed = versions(conversation, turn, part)
    at = next(i for i, other in enumerate(listed) if other is turn) + step
    return listed[at] if 0 <= at < len(listed) else None


def show(conversation: Conversation, turn: Turn) -> None:
    """Show the path through `turn`: what came before it, and behind it what was shown there last, or came last."""
    by_id: dict[str | None, Turn] = {}
    newest: dict[str | None, Turn] = {}  # of the children of each
    for other in all_turns(conversation):
        by_id[other.id] = newest[other.parent] = other
    _note_shown(conversation)
    path, here = [turn], {turn.id}
    while (before := by_id.get(path[0].parent)) is not None and before.id not in here:
        path.insert(0, before)
        here.add(before.id)
    while (following := newest.get(path[-1].id)) is not None and following.id not in here:
        path.append(by_id.get(conversation.last_shown.get(path[-1].id), following))
        here.add(path[-1].id)
    set_path(conversation, path)


def cut(conversation: Conversation, turn: Turn) -> None:
    """Take a turn of the path and what follows it off the path."""
    at = next(i for i, shown in enumerate(conversation.turns) if shown is turn)
    _note_shown(conversation)
    set_path(conversation, conversation.turns[:at])


def set_path(conversation: Conversation, path: Iterable[Turn]) -> None:
    """Show these turns; all others stay in the tree."""
    path = list(path)
    shown = {id(turn) for turn in path}
    left = [turn for turn in all_turns(conversation) if id(turn) not in shown]
    if not path or path[-1] is not conversation.last:
        conversation.next_compaction = None  # it was chosen for what comes behind that turn
    conversation.turns, conversation.others = path, left


def find(conversation: Conversation, turn: str) -> Turn | None:
    """The turn with this id, shown or not."""
    return next((other for other in all_turns(conversation) if other.id == turn), None)


def copied(turn: Turn, parent: str | None) -> Turn:
    """The same words as another turn behind `parent`."""
    state = TurnState.INTERRUPTED if turn.state == TurnState.STREAMING else turn.state
    number = Turn("").number
    return dataclasses.replace(turn, id=new_id(), parent=parent, state=state, number=number)


def _said_something(turn: Turn) -> bool:
    return bool(turn.raw_reply or turn.raw_thinking) or turn.state in (
        TurnState.STREAMING,
        TurnState.COMPLETE,
    )


def _note_shown(conversation: Conversation) -> None:
    for turn in conversation.turns:
        conversation.last_shown[turn.parent] = turn.id
