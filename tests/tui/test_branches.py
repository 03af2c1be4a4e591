"""Versions, branches, continuing and changing replies, by keyboard alone at 80x24."""

from __future__ import annotations

from ktchat.store.conversation import Conversation, Turn
from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Running, Start

SMALL = (80, 24)


async def asked(start: Start, *script: Reply | str, questions: str = "ab") -> Running:
    run = await start(*script, size=SMALL)
    for question in questions:
        await run.ask(f"question {question}")
    return run


def row_of(run: Running, words: str) -> int:
    return next(y for y, line in enumerate(run.lines()) if words in line)


async def to_message(run: Running, up: int) -> None:
    """Focus the message so many above the prompt: 1 is the last reply."""
    await run.press("shift+tab", *["up"] * (up - 1))


async def test_e_and_r_act_on_the_message_that_has_the_focus(start: Start) -> None:
    run = await asked(start, "reply one", "reply two", "reply three", "reply four")
    await to_message(run, 3)  # the first reply
    await run.press("r")
    await run.sees("reply three", "‹ 2/2 ›")
    assert "question b" not in run.text()
    await to_message(run, 2)  # the first message
    await run.press("e")
    await run.sees("editing your message")
    assert run.screen.prompt.text == "question a"
    await run.type(" again")
    await run.press("enter")
    await run.sees("question a again", "reply four")
    assert [m.content for m in run.engine.requests[-1].messages] == ["question a again"]


async def test_versions_are_walked_by_keys_in_their_place(start: Start) -> None:
    run = await asked(start, "reply one", "reply two", "another one")
    await to_message(run, 3)
    await run.press("r")
    await run.sees("another one", "‹ 2/2 ›")
    at = row_of(run, "‹ 2/2 ›")
    await to_message(run, 1)
    await run.sees("versions", "branch")
    await run.press("left")
    await run.sees("‹ 1/2 ›", "reply one", "question b", "reply two")
    assert row_of(run, "‹ 1/2 ›") == at
    assert [turn.raw_reply for turn in run.chat.conversation.turns] == ["reply one", "reply two"]
    await run.press("right")
    await run.sees("another one", "‹ 2/2 ›")
    await run.misses("question b")
    await run.press("right")
    await run.sees("there is no version further on")


async def test_a_version_with_much_behind_it_keeps_its_place(start: Start) -> None:
    run = await start("ok", size=SMALL)
    turns: list[Turn] = []
    for number in range(60):
        parent = turns[-1].id if turns else None
        turns.append(Turn(f"q {number}", "a", state="complete", parent=parent))  # type: ignore[arg-type]
    other = Turn("q 0", "other", state="complete")  # type: ignore[arg-type]
    conversation = Conversation(title="long", turns=[other], others=turns)
    run.chat.store.save_conversation(conversation)
    run.screen.sessions.open(conversation.id)
    await run.sees("other", "‹ 2/2 ›")
    await run.press("shift+tab", "left")
    await run.sees("‹ 1/2 ›", "q 1", "q 2")
    assert row_of(run, "‹ 1/2 ›") < 8
    await run.press("right")
    await run.sees("other", "‹ 2/2 ›")


async def test_versions_are_walked_by_mouse_and_come_back_after_a_restart(start: Start) -> None:
    run = await asked(start, "reply one", "reply two", questions="a")
    await run.press("ctrl+r")
    await run.sees("‹ 2/2 ›")
    row = row_of(run, "‹ 2/2 ›")
    await run.pilot.click(offset=(run.lines()[row].index("‹"), row))
    await run.sees("‹ 1/2 ›", "reply one")
    await run.until(lambda: not run.chat.saver.pending)
    again = await start("x", size=SMALL)
    await again.sees("‹ 1/2 ›", "reply one")


async def test_a_stopped_reply_goes_on_by_f9(start: Start) -> None:
    run = await start(Reply("word " * 40, hold_after=10), "and the end", size=SMALL)
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word")
    await run.press("escape")
    await run.sees("stopped", "F9 goes on")
    before = run.last.raw_reply
    await run.press("f9")
    await run.sees("and the end")
    assert run.last.raw_reply == f"{before}and the end"
    assert run.last.state == "complete" and len(run.chat.conversation.turns) == 1
    assert "stopped" not in run.text()
    await run.press("f9")
    await run.sees("This reply cannot go on")


async def test_a_reply_is_changed_in_its_place(start: Start) -> None:
    run = await asked(start, "reply one", "reply two")
    await run.type("a draft")
    await to_message(run, 3)
    await run.press("e")
    await run.sees("editing the reply")
    assert run.screen.prompt.text == "reply one"
    run.screen.prompt.put("quite another")
    await run.press("enter")
    await run.sees("quite another", "changed by you", "‹ 1/2 ›", "reply two")
    assert run.screen.prompt.text == "a draft"
    assert len(run.engine.requests) == 2


async def test_a_branch_is_a_session_of_its_own(start: Start) -> None:
    run = await asked(start, "reply one", "reply two")
    old = run.chat.conversation.id
    await to_message(run, 3)
    await run.press("b")
    await run.until(lambda: run.chat.conversation.id != old)
    await run.sees("reply one", "the other one stays as it is")
    await run.misses("reply two")
    assert len(run.chat.store.sessions()) == 2


async def test_what_is_read_again_is_said_before(start: Start) -> None:
    engine = FakeEngine([Reply("word " * 60, prefill_seconds=0.1, prefill_steps=2), "b", "c"])
    run = await start(engine=engine, size=SMALL)
    await run.ask("a question " * 50)
    await run.ask("another " * 50)
    await to_message(run, 3)
    await run.sees("r regenerate: reads", "tokens again")
    await to_message(run, 2)


async def test_a_regeneration_in_the_middle_that_brings_nothing_gives_all_back(
    start: Start,
) -> None:
    run = await asked(start, "reply one", "reply two", Reply("x", hold_after=0))
    await to_message(run, 3)
    await run.press("r")
    await run.misses("reply two")
    await run.press("escape")
    await run.sees("reply one", "question b", "reply two")
    assert len(run.chat.conversation.turns) == 2
