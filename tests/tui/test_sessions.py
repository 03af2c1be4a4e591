"""The session list: opening, renaming, deleting and bringing back; what is kept across starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktchat.common.errors import StoreError
from tests.support.fake_engine import Reply
from tests.tui.conftest import Running, Start

WIDE = (120, 30)


async def two_sessions(start: Start) -> Running:
    """A program with the sessions `about cats` (older) and `about dogs` (open)."""
    run = await start("cats say miaow", "dogs bark", "more of it", size=WIDE)
    await run.ask("about cats")
    await run.press("ctrl+n")
    await run.until(lambda: not run.chat.conversation.turns)
    await run.ask("about dogs")
    await run.sees("today", "about cats", "about dogs")
    return run


async def into_the_list(run: Running) -> None:
    """Put the focus into the session list."""
    run.screen.session_list.focus()
    await run.pilot.pause()


async def test_sessions_are_listed_by_age_with_the_open_one_marked(start: Start) -> None:
    run = await two_sessions(start)
    assert any(line.startswith("▌ about dogs") for line in run.lines())
    assert any(line.startswith("  about cats") for line in run.lines())


async def test_enter_opens_the_session_under_the_cursor(start: Start) -> None:
    run = await two_sessions(start)
    await into_the_list(run)
    await run.press("down", "enter")
    await run.sees("cats say miaow")
    assert "dogs bark" not in run.text()
    assert run.screen.prompt.has_focus
    await run.ask("go on")
    messages = run.engine.requests[-1].messages
    assert [m.content for m in messages] == ["about cats", "cats say miaow", "go on"]


async def test_a_click_opens_a_session(start: Start) -> None:
    run = await two_sessions(start)
    row = next(y for y, line in enumerate(run.lines()) if line.startswith("  about cats"))
    await run.pilot.click(offset=(5, row))
    await run.sees("cats say miaow")


async def test_a_session_is_renamed(start: Start) -> None:
    run = await two_sessions(start)
    await run.press("f2")
    await run.sees("Title of the session")
    await run.press("ctrl+u")
    await run.type("hounds")
    await run.press("enter")
    await run.until(lambda: any(line.startswith("▌ hounds") for line in run.lines()))
    again = await start(size=WIDE)
    await again.sees("hounds")


async def test_deleting_can_be_undone(start: Start) -> None:
    run = await two_sessions(start)
    await into_the_list(run)
    await run.press("down", "delete")
    await run.sees("“about cats” is deleted", "undo")
    assert "about cats" not in [s.title for s in run.chat.store.sessions()]
    await run.press("u")
    await run.sees("the session is back")
    assert "about cats" in [s.title for s in run.chat.store.sessions()]
    await run.press("enter")  # the cursor is where it was
    await run.sees("cats say miaow")


async def test_the_cursor_goes_on_when_a_deleted_session_is_gone_for_good(start: Start) -> None:
    run = await two_sessions(start)
    await into_the_list(run)
    await run.press("down", "delete")
    await run.sees("“about cats” is deleted", "undo")
    run.screen.session_list.forget(run.screen.sessions._deleted.pop())
    await run.until(lambda: run.screen.session_list.chosen is not None)
    chosen = run.screen.session_list.chosen
    assert chosen is not None and chosen.title == "about dogs"


async def test_undo_is_a_click_away(start: Start) -> None:
    run = await two_sessions(start)
    await into_the_list(run)
    await run.press("down", "delete")
    await run.sees("is deleted")
    row = next(y for y, line in enumerate(run.lines()) if "is deleted  undo" in line)
    await run.pilot.click(offset=(run.lines()[row].index("undo", 30) + 1, row))
    await run.sees("the session is back")


async def test_deleting_the_open_session_begins_a_new_one(start: Start) -> None:
    run = await two_sessions(start)
    await into_the_list(run)
    await run.press("delete")
    await run.until(lambda: not run.chat.conversation.turns)
    assert "dogs bark" not in run.text()
    await run.sees("Ask Fake")


async def test_the_last_session_is_open_at_the_next_start(start: Start) -> None:
    await two_sessions(start)
    again = await start("and on", size=WIDE)
    await again.sees("about dogs", "dogs bark")


async def test_unsent_text_is_kept_per_session(start: Start) -> None:
    run = await two_sessions(start)
    await run.type("half a thought")
    await into_the_list(run)
    await run.press("down", "enter")
    await run.sees("cats say miaow")
    assert run.screen.prompt.text == ""
    await into_the_list(run)
    await run.press("home", "enter")
    await run.until(lambda: run.chat.conversation.title == "about dogs")
    await run.until(lambda: run.screen.prompt.text == "half a thought")


async def test_another_session_stops_the_reply_and_keeps_it(start: Start) -> None:
    run = await start("cats say miaow", Reply("bark " * 500, hold_after=100), size=WIDE)
    await run.ask("about cats")
    await run.press("ctrl+n")
    await run.until(lambda: not run.chat.conversation.turns)
    run.screen.prompt.put("about dogs")
    await run.press("enter")
    await run.sees("bark bark bark")
    left = run.chat.conversation.id
    row = next(y for y, line in enumerate(run.lines()) if line.startswith("  about cats"))
    await run.pilot.click(offset=(5, row))
    await run.sees("cats say miaow", "the reply was stopped and is kept in “about dogs”")
    kept = run.chat.store.load(left).turns[0]
    assert kept.state == "stopped"
    assert "bark" in kept.reply


async def test_what_is_typed_after_ctrl_n_goes_into_the_new_session(start: Start) -> None:
    run = await start(Reply("bark " * 500, hold_after=100), "miaow", size=WIDE)
    run.screen.prompt.put("about dogs")
    await run.press("enter")
    await run.sees("bark bark bark")
    await run.type("half a thought")
    await run.press("ctrl+n", *"cats?")  # the reply is still being stopped
    await run.until(lambda: not run.chat.conversation.turns)
    await run.until(lambda: run.screen.prompt.text == "cats?")
    await run.press("enter")
    await run.sees("miaow")
    assert [m.content for m in run.engine.requests[-1].messages] == ["cats?"]
    await into_the_list(run)
    await run.press("down", "enter")
    await run.until(lambda: run.screen.prompt.text == "half a thought")


async def test_the_list_is_shown_and_hidden_and_that_is_remembered(start: Start) -> None:
    run = await two_sessions(start)
    await run.press("ctrl+b")
    await run.misses("today")
    again = await start(size=WIDE)
    await again.sees("Fake")
    assert "today" not in again.text()
    await again.press("ctrl+b")
    await again.sees("today")


async def test_on_a_narrow_screen_the_list_lies_above_the_conversation(start: Start) -> None:
    run = await two_sessions(start)
    await run.pilot.resize_terminal(80, 24)
    await run.misses("today")
    width = run.screen.transcript.size.width
    await run.press("ctrl+b")
    await run.sees("today", "about cats")
    assert run.screen.transcript.size.width == width
    await run.press("escape")
    await run.misses("today")
    assert run.screen.prompt.has_focus


async def test_a_session_that_another_program_has_open_can_only_be_read(start: Start) -> None:
    first = await start("cats say miaow", size=WIDE)
    await first.ask("about cats")
    second = await start("x", size=WIDE)
    await second.sees("cats say miaow", "open in another ktchat")
    second.screen.prompt.put("mine")
    await second.press("enter")
    await second.sees("The message was not sent")
    assert second.screen.prompt.text == "mine"


async def test_sessions_that_cannot_be_saved_are_listed_and_opened_from_memory(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start("cats say miaow", "dogs bark", size=WIDE)

    def full(*_: object) -> None:
        raise StoreError("The sessions cannot be saved", "the disk is full", "Free some space")

    with monkeypatch.context() as broken:
        broken.setattr(run.chat.store, "save", full)
        await run.ask("about cats")
        await run.sees("The sessions cannot be saved. the disk is full. Free some space.")
        await run.press("ctrl+n")
        await run.until(lambda: not run.chat.conversation.turns)
        await run.ask("about dogs")
        await run.sees("about cats", "about dogs")
        await into_the_list(run)
        await run.press("down", "enter")
        await run.sees("cats say miaow")
    await run.ask("and more")
    await run.sees("Everything is saved again")
    assert len(run.chat.store.sessions()) == 2


async def test_leaving_with_unsaved_text_is_asked_once_and_keeps_it_elsewhere(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start("cats say miaow", size=WIDE)

    def full(*_: object) -> None:
        raise StoreError("The sessions cannot be saved", "the disk is full", "Free some space")

    monkeypatch.setattr(run.chat.store, "save", full)
    await run.ask("about cats")
    run.screen.prompt.put("an unsent draft")
    await run.press("ctrl+q")
    await run.sees("Not everything is saved.", "Quit, and keep it in a file")
    await run.press("enter")  # the first answer is to stay
    await run.until(lambda: run.app.screen is run.screen)
    await run.press("ctrl+q")
    await run.sees("Quit, and keep it in a file")
    await run.press("down", "enter")
    await run.until(lambda: run.app.unsaved)
    assert run.app.return_code == 1
    (place,) = home.glob("ktchat-unsaved-*")
    assert str(place) in run.app.unsaved and "the disk is full" in run.app.unsaved
    (kept,) = place.glob("*.json")
    assert "cats say miaow" in kept.read_text() and kept.stat().st_mode & 0o777 == 0o600
    (draft,) = place.glob("*.txt")
    assert draft.read_text() == "an unsent draft"


async def test_a_burst_of_keys_leaves_one_dialog_and_nothing_below_it(start: Start) -> None:
    run = await two_sessions(start)
    for keys in (("f1", "escape"), ("ctrl+o", "escape"), ("f2", "escape"), ("f2", "enter")):
        run.app.simulate_key(keys[0])
        await run.until(lambda: run.app.screen is not run.screen)
        top = run.app.screen
        for _ in range(4):  # before the first has taken effect
            top.dismiss(None)
        await run.until(lambda: run.app.screen is run.screen)
    await run.sees("about dogs")


async def test_five_hundred_turns_open_from_their_end_and_older_ones_join(start: Start) -> None:
    run = await start("ok", size=WIDE)
    turns = run.chat.conversation
    await run.ask("seed")
    from ktchat.store.conversation import Turn

    parent = turns.turns[-1].id
    for number in range(500):
        turn = Turn(f"question {number}", f"answer {number}", state="complete", parent=parent)
        turns.turns.append(turn)
        parent = turn.id
    run.chat.store.save_conversation(turns)
    again = await start(size=WIDE)
    await again.sees("answer 499")
    transcript = again.screen.transcript
    assert len(transcript.query("MessageView")) <= 80
    transcript.scroll_home(animate=False)
    await again.until(lambda: len(transcript.query("MessageView")) > 60)
    await again.until(lambda: transcript.scroll_y > 10)
    await again.sees("question 48")
