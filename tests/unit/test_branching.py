"""The chat as a tree: any turn edited, regenerated, continued, changed by hand, branched."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import EngineError, RequestError
from engine.protocol import Begun
from ktchat.common.errors import SessionBusyError
from ktchat.session.chat import ChatSession, Started
from ktchat.store import tree
from ktchat.store.store import Store
from tests.support.fake_engine import FakeEngine, Reply
from tests.unit.test_chat import Start, all_of, asked, on_disk, start

__all__ = ["start"]


async def three_turns(start: Start, *more: Reply | str) -> ChatSession:
    chat = await start("one", "two", "three", *more)
    for prompt in "abc":
        await all_of(chat.send(prompt))
    return chat


def shown(chat: ChatSession) -> str:
    return " ".join(f"{turn.raw_prompt}:{turn.raw_reply}" for turn in chat.conversation.turns)


async def test_any_message_is_edited_and_what_is_shown_is_what_is_sent(start: Start) -> None:
    chat = await three_turns(start, "better")
    second = chat.conversation.turns[1]
    updates = await all_of(chat.edit("B", second))
    assert isinstance(updates[0], Started) and updates[0].replaced is second
    assert asked(chat) == ["user: a", "assistant: one", "user: B"]
    assert shown(chat) == "a:one B:better"
    chat.show_version(second)
    assert shown(chat) == "a:one b:two c:three"
    await chat.saver.flush()
    assert [prompt for prompt, *_ in on_disk(chat)] == ["a", "b", "c"]
    await all_of(chat.send("d"))
    assert asked(chat)[-2:] == ["assistant: three", "user: d"]


async def test_any_reply_is_regenerated(start: Start) -> None:
    chat = await three_turns(start, "another")
    first = chat.conversation.turns[0]
    await all_of(chat.regenerate(first))
    assert (asked(chat), shown(chat)) == (["user: a"], "a:another")
    assert tree.place(chat.conversation, chat.conversation.turns[0], "reply") == (2, 2)


async def test_a_regeneration_in_the_middle_that_fails_changes_nothing(start: Start) -> None:
    chat = await three_turns(start, Reply(error=EngineError("It died")))
    await all_of(chat.regenerate(chat.conversation.turns[0]))
    assert shown(chat) == "a:one b:two c:three"
    assert [prompt for prompt, *_ in on_disk(chat)] == ["a", "b", "c"]


async def test_a_stopped_reply_goes_on_from_its_end(start: Start) -> None:
    chat = await start(Reply("one two three", thinking="hm", hold_after=3), " four five")
    async for _ in chat.send("a"):
        turn = chat.conversation.turns[0]
        if turn.raw_reply == "one two":
            chat.stop()
    assert (turn.state, turn.raw_reply) == ("stopped", "one two")
    tokens = turn.figures.reply_tokens if turn.figures else 0
    await all_of(chat.go_on())
    request = chat.engine.requests[-1]  # type: ignore[attr-defined]
    assert request.begun == Begun("hm", "one two")
    assert asked(chat) == ["user: a"]
    assert on_disk(chat) == [("a", "one two four five", "complete")]
    assert turn.figures is not None and turn.figures.reply_tokens == tokens + 2
    with pytest.raises(RequestError):
        chat.go_on()


async def test_a_reply_in_the_middle_goes_on_as_a_new_version(start: Start) -> None:
    chat = await start(Reply("one", reason="length"), "two", " and more")
    await all_of(chat.send("a"))
    assert chat.conversation.turns[0].reason == "length"
    await all_of(chat.send("b"))
    await all_of(chat.go_on(chat.conversation.turns[0]))
    assert shown(chat) == "a:one and more"
    chat.show_version(chat.conversation.others[0])
    assert shown(chat) == "a:one b:two"


async def test_a_reply_is_changed_in_its_place_and_the_old_one_stays(start: Start) -> None:
    chat = await three_turns(start, "four")
    turn = chat.conversation.turns[0]
    chat.edit_reply(turn, "ONE")
    assert shown(chat) == "a:ONE b:two c:three"
    await all_of(chat.send("d"))
    assert asked(chat)[:2] == ["user: a", "assistant: ONE"]
    old = tree.neighbour(chat.conversation, turn, "reply", 1)
    assert old is not None and (old.raw_reply, old.edited) == ("one", None)
    saved = Store(chat.store.path).load(chat.conversation.id)
    assert saved.turns[0].edited and saved.turns[0].raw_reply == "ONE"
    assert "one" in [other.raw_reply for other in saved.others]
    with pytest.raises(RequestError):
        chat.edit_reply(turn, " ")


async def test_a_version_that_is_not_shown_any_more_is_left_alone(start: Start) -> None:
    chat = await three_turns(start, "another")
    second = chat.conversation.turns[1]
    await all_of(chat.regenerate(chat.conversation.turns[0]))
    for call in (chat.regenerate, lambda turn: chat.edit("B", turn)):
        with pytest.raises(RequestError):
            call(second)
    with pytest.raises(RequestError):
        chat.edit_reply(second, "x")
    with pytest.raises(RequestError):
        await chat.branch(second)
    assert shown(chat) == "a:another"


async def test_a_branch_is_a_session_of_its_own(start: Start) -> None:
    chat = await three_turns(start, "four")
    before = chat.conversation
    await chat.branch(before.turns[1])
    assert chat.conversation.id != before.id
    assert (shown(chat), chat.conversation.title) == ("a:one b:two", "a · branch")
    await all_of(chat.send("d"))
    assert asked(chat) == ["user: a", "assistant: one", "user: b", "assistant: two", "user: d"]
    assert [t.raw_prompt for t in chat.store.load(before.id).turns] == ["a", "b", "c"]
    assert len(on_disk(chat)) == 3
    await chat.open(before.id)
    assert shown(chat) == "a:one b:two c:three"


async def test_a_read_only_session_is_walked_and_branched_and_never_changed(start: Start) -> None:
    chat = await three_turns(start, "another")
    await all_of(chat.regenerate(chat.conversation.turns[0]))
    other = await start("x")
    await other.open(chat.conversation.id)
    assert other.read_only and shown(other) == "a:another"
    other.show_version(other.conversation.others[0])
    assert shown(other) == "a:one b:two c:three"
    with pytest.raises(SessionBusyError):
        other.edit_reply(other.conversation.turns[0], "mine")
    await other.saver.flush()
    assert on_disk(chat) == [("a", "another", "complete")]
    await other.branch(other.conversation.turns[0])
    assert not other.read_only and shown(other) == "a:one"


async def test_what_came_before_a_crash_goes_on(start: Start, tmp_path: Path) -> None:
    chat = await start("one")
    await all_of(chat.send("a"))
    turn = chat.conversation.turns[0]
    turn.state, turn.raw_reply = "streaming", "half a"  # type: ignore[assignment]
    chat.store.save_conversation(chat.conversation)
    await chat.close()
    again = await start(" reply")
    await again.open(chat.conversation.id)
    await all_of(again.go_on())
    assert isinstance(again.engine, FakeEngine)
    assert on_disk(again) == [("a", "half a reply", "complete")]
