"""Searching by keyboard alone at 80x24: this conversation, all sessions, and the way to the turn."""

from __future__ import annotations

from ktchat.store.conversation import Conversation, Turn
from tests.tui.conftest import Running, Start

SMALL = (80, 24)


async def with_sessions(start: Start) -> Running:
    run = await start("cats say miaow", "dogs bark at 混合专家", "more", size=SMALL)
    await run.ask("about cats")
    await run.press("ctrl+n")
    await run.until(lambda: not run.chat.conversation.turns)
    await run.ask("about dogs")
    await run.ask("and now")
    return run


async def test_words_are_found_in_all_sessions_and_lead_to_their_turn(start: Start) -> None:
    run = await with_sessions(start)
    await run.press("ctrl+b")
    await run.until(lambda: run.screen.session_list.has_focus)
    await run.press("slash")
    await run.sees("Search in all sessions")
    await run.type("about")
    await run.sees("about cats", "about dogs", "hits")
    await run.type(" cats")
    await run.misses("about dogs\n")
    await run.press("enter")
    await run.sees("cats say miaow")
    assert run.chat.conversation.title == "about cats"
    assert "today" not in run.text()


async def test_a_hit_in_the_middle_of_a_long_session_is_shown(start: Start) -> None:
    run = await start("ok", size=SMALL)
    turns: list[Turn] = []
    for number in range(150):
        parent = turns[-1].id if turns else None
        words = f"question {number} " + ("with a needle" if number == 20 else "")
        turns.append(Turn(words, "answer " * 30, state="complete", parent=parent))  # type: ignore[arg-type]
    run.chat.store.save_conversation(Conversation(title="long", turns=turns))
    await run.press("ctrl+f")
    await run.sees("Search in all sessions")  # there is nothing here yet
    await run.type("needle")
    await run.sees("with a needle", "1 hit")
    await run.press("enter")
    await run.until(lambda: run.chat.conversation.title == "long")
    await run.sees("question 20 with a needle")
    await run.until(lambda: "question 20" in "".join(run.lines()[1:6]))
    assert run.app.focused is run.screen.transcript.view_of(
        run.chat.conversation.turns[20], "prompt"
    )


async def test_this_conversation_is_searched_with_its_hidden_versions(start: Start) -> None:
    run = await start("first reply", "second reply", size=SMALL)
    await run.ask("hi")
    await run.press("ctrl+r")
    await run.sees("‹ 2/2 ›")
    await run.press("ctrl+f")
    await run.sees("Search in this conversation")
    await run.type("first")
    await run.sees("Reply: first reply")
    await run.press("enter")
    await run.sees("first reply", "‹ 1/2 ›")


async def test_tab_searches_elsewhere_and_chinese_is_found(start: Start) -> None:
    run = await with_sessions(start)
    await run.press("ctrl+f")
    await run.sees("Search in this conversation")
    await run.type("miaow")
    await run.sees("nothing has these words")
    await run.press("tab")
    await run.sees("Search in all sessions", "cats say miaow")
    await run.press("ctrl+u", *"专家")
    await run.sees("dogs bark at 混合专家")
    await run.press("escape")
    await run.misses("Search in")
    assert run.screen.prompt.has_focus


async def test_the_list_shows_as_much_of_a_title_as_there_is_room_and_the_day(start: Start) -> None:
    run = await start("ok", size=SMALL)
    await run.ask("a rather long title that would not fit into thirty cells")
    await run.press("ctrl+b")
    await run.sees("▌ a rather long title that would not fit into")
    row = next(line for line in run.lines() if "▌ a rather" in line)
    assert ":" in row  # today: the time
