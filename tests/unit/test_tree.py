"""The tree of a conversation's turns: versions, and the path through it that is shown."""

from __future__ import annotations

from pathlib import Path

from ktchat.store import tree
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.store import Store


def said(
    prompt: str, reply: str = "ok", parent: Turn | None = None, state: str = "complete"
) -> Turn:
    return Turn(prompt, reply, state=state, parent=parent.id if parent else None)  # type: ignore[arg-type]


def a_tree() -> tuple[Conversation, dict[str, Turn]]:
    """a - b - c, where b has another reply (b2) with d behind it, and another message (e)."""
    a = said("a")
    b = said("b", "first", a)
    c = said("c", parent=b)
    b2 = said("b", "second", a)
    d = said("d", parent=b2)
    e = said("e", parent=a)
    conversation = Conversation(turns=[a, b, c], others=[b2, d, e])
    return conversation, {"a": a, "b": b, "c": c, "b2": b2, "d": d, "e": e}


def shown(conversation: Conversation) -> str:
    return " ".join(f"{turn.raw_prompt}:{turn.raw_reply}" for turn in conversation.turns)


def test_versions_are_of_the_message_or_of_its_reply() -> None:
    conversation, turns = a_tree()
    assert tree.place(conversation, turns["b"], "reply") == (1, 2)
    assert tree.place(conversation, turns["b2"], "reply") == (2, 2)
    assert tree.place(conversation, turns["b"], "prompt") == (1, 2)
    assert tree.place(conversation, turns["e"], "prompt") == (2, 2)
    assert tree.place(conversation, turns["a"], "prompt") == (1, 1)
    assert tree.neighbour(conversation, turns["b"], "reply", 1) is turns["b2"]
    assert tree.neighbour(conversation, turns["b"], "reply", -1) is None
    assert tree.neighbour(conversation, turns["e"], "prompt", -1) is turns["b2"]


def test_walking_shows_what_was_shown_there_last() -> None:
    conversation, turns = a_tree()
    tree.show(conversation, turns["b2"])
    assert shown(conversation) == "a:ok b:second d:ok"
    tree.show(conversation, turns["e"])
    assert shown(conversation) == "a:ok e:ok"
    tree.show(conversation, turns["b"])
    assert shown(conversation) == "a:ok b:first c:ok"
    tree.show(conversation, turns["a"])
    assert shown(conversation) == "a:ok b:first c:ok"
    assert len(conversation.others) == 3


def test_an_attempt_that_brought_nothing_is_no_version() -> None:
    a = said("a")
    failed = said("b", "", a, "failed")
    again = said("b", "there", a)
    conversation = Conversation(turns=[a, again], others=[failed])
    assert tree.place(conversation, again, "reply") == (1, 1)
    tree.show(conversation, failed)
    assert tree.place(conversation, failed, "reply") == (1, 2)


def test_turns_in_a_circle_end(tmp_path: Path) -> None:
    a, b = said("a"), said("b")
    a.parent, b.parent = b.id, a.id
    conversation = Conversation(turns=[a, b])
    tree.show(conversation, a)
    assert len(conversation.turns) == 2


def test_the_tree_and_its_order_come_back(tmp_path: Path) -> None:
    conversation, turns = a_tree()
    for turn in turns.values():
        turn.created = 5.0  # a new reply leaves the message's time as it is
    tree.show(conversation, turns["b2"])
    store = Store(tmp_path / "ktchat.db")
    store.save_conversation(conversation)
    store.close()
    back = Store(store.path).load(conversation.id)
    assert shown(back) == "a:ok b:second d:ok"
    assert tree.place(back, back.turns[1], "reply") == (2, 2)
    first = tree.neighbour(back, back.turns[1], "reply", -1)
    assert first is not None
    tree.show(back, first)
    assert shown(back) == "a:ok b:first c:ok"
