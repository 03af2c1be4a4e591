"""A conversation from another program's tree of messages.

There a message is a node; here a turn is a message of the person and a reply to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ktchat.common.text import one_line
from ktchat.store import tree
from ktchat.store.conversation import Conversation, Turn, TurnState, title_of
from ktchat.store.foreign import MalformedError, Node, Tree


@dataclass(slots=True)
class _Walk:
    """Where a walk down a tree of messages is."""

    node: Node
    base: str | None
    """The turn before."""
    pending: str | None = None
    """What the person said and was not answered yet."""
    turn: Turn | None = None
    """The turn that goes on when the assistant says more."""


def conversation_of(source: Tree) -> Conversation:
    """Turns from messages: each of the person's with each of the replies to it."""
    children: dict[str | None, list[Node]] = {}
    known = {node.id for node in source.nodes}
    if len(known) < len(source.nodes):
        raise MalformedError("two of its messages have the same id")
    for node in source.nodes:
        parent = node.parent if node.parent in known else None
        children.setdefault(parent, []).append(node)
    conversation = Conversation(
        title=one_line(source.title),
        created=source.created,
        updated=source.updated,
        system=source.system,
    )
    turns: list[Turn] = []
    at: dict[str, Turn] = {}  # of messages
    waiting = [_Walk(node, None) for node in reversed(children.get(None, []))]
    while waiting:
        step = waiting.pop()
        _take(step, conversation, turns)
        following = children.get(step.node.id, [])
        if step.turn is None and step.pending is not None and not following:
            step.turn = _turn(step, turns)
            step.turn.state = TurnState.INTERRUPTED
        if step.turn is not None:
            at[step.node.id] = step.turn
        for number, child in reversed(list(enumerate(following))):
            turn = step.turn
            if turn is not None and number and child.role == "assistant":
                turn = tree.copied(turn, turn.parent)  # more than one went on from here
                turns.append(turn)
            waiting.append(_Walk(child, step.base, step.pending, turn))
    if turns:
        conversation.turns = [turns[-1]]
        conversation.others = turns[:-1]
        tree.show(conversation, at.get(source.current, turns[-1]))
    _complete(conversation, turns)
    return conversation


def _take(step: _Walk, conversation: Conversation, turns: list[Turn]) -> None:
    """Take a message on the way down."""
    node = step.node
    if node.role == "system" and not conversation.system:
        conversation.system = node.text
    elif node.role == "user":
        if step.turn is not None:
            step.base, step.turn = step.turn.id, None
        step.pending = "\n\n".join(filter(None, (step.pending, node.text)))
    elif node.role == "assistant":
        if step.turn is None:
            step.turn, step.pending = _turn(step, turns), None
        turn = step.turn
        turn.raw_reply = "\n\n".join(filter(None, (turn.raw_reply, node.text)))
        turn.raw_thinking = "\n\n".join(filter(None, (turn.raw_thinking, node.thinking)))
        turn.model = turn.model or one_line(node.model, 80)


def _turn(step: _Walk, turns: list[Turn]) -> Turn:
    words = step.pending or "…"  # who begins is the assistant
    turn = Turn(words, state=TurnState.COMPLETE, parent=step.base, created=step.node.time)
    turns.append(turn)
    return turn


def _complete(conversation: Conversation, turns: list[Turn]) -> None:
    """What the file left out: times, a title, the model."""
    times = [turn.created for turn in turns if turn.created]
    conversation.created = conversation.created or min(times, default=0.0)
    conversation.updated = conversation.updated or max(times, default=conversation.created)
    for turn in turns:
        turn.created = turn.created or conversation.created
    if conversation.turns:
        conversation.title = conversation.title or title_of(conversation.turns[0].raw_prompt)
        conversation.model_name = conversation.turns[-1].model
