"""Sending, streaming, stopping, regenerating, editing."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from textual import events
from textual.selection import Selection

from engine.errors import EngineError
from ktchat.common import paths
from ktchat.store.export import to_markdown
from tests.support.clock import soon
from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Start


async def test_a_message_is_sent_and_its_reply_is_shown(start: Start) -> None:
    run = await start("Hello, **you**.")
    await run.type("hi there")
    await run.press("enter")
    await run.sees("You", "hi there", "Fake", "Hello, you.")
    assert run.screen.prompt.text == ""
    assert "**" not in run.text()


async def test_a_reply_is_shown_while_it_is_written(start: Start) -> None:
    run = await start(Reply("first words " * 150 + "the end", hold_after=100))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("first words")
    assert run.chat.busy
    assert "the end" not in run.text()


async def test_reading_the_prompt_is_said_with_its_progress(start: Start) -> None:
    run = await start(Reply("done", prefill_seconds=200.0, prefill_steps=1000))
    run.screen.prompt.put("word " * 1000)
    await run.press("enter")
    await run.sees("reading", "tokens", "left")


async def test_thinking_is_counted_while_it_goes_on_and_folded_after(start: Start) -> None:
    run = await start(
        Reply("the answer", thinking="deep thought" + " more thought" * 124, hold_after=100)
    )
    run.screen.prompt.put("why")
    await run.press("enter")
    await run.sees("thinking ·", "tokens")
    run.engine.go_on()
    await run.sees("thought for", "250 tokens", "the answer")
    assert "deep thought" not in run.text()


async def test_thinking_unfolds_by_key_and_that_is_remembered(start: Start) -> None:
    run = await start(Reply("the answer", thinking="deep thought"))
    await run.ask("why")
    await run.press("ctrl+t")
    await run.sees("deep thought")
    again = await start(Reply("x"))
    await again.sees("deep thought")
    await again.press("ctrl+t")
    await again.misses("deep thought")


async def test_several_pasted_lines_stay_one_unsent_message(start: Start) -> None:
    run = await start("ok")
    run.screen.prompt.post_message(events.Paste("one\ntwo\nthree\n"))
    await run.until(lambda: run.screen.prompt.text == "one\ntwo\nthree\n")
    assert run.engine.requests == []
    await run.press("enter")
    await run.until(lambda: run.engine.requests)
    assert run.engine.requests[0].messages[-1].content == "one\ntwo\nthree\n"


async def test_lines_are_broken_by_ctrl_j_and_shift_enter_and_the_box_grows(start: Start) -> None:
    run = await start("ok", size=(80, 24))
    height = run.screen.prompt.size.height
    await run.type("a")
    await run.press("ctrl+j")
    await run.type("b")
    await run.press("shift+enter")
    await run.type("c")
    assert run.screen.prompt.text == "a\nb\nc"
    await run.until(lambda: run.screen.prompt.size.height == height + 2)
    for _ in range(20):
        await run.press("ctrl+j")
    assert run.screen.prompt.outer_size.height <= 24 // 3


async def test_escape_stops_the_reply_and_keeps_what_came(start: Start) -> None:
    run = await start(Reply("word " * 500, hold_after=100))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word word")
    await run.press("escape")
    await run.sees("stopped")
    assert run.last.state == "stopped"
    assert 0 < run.last.reply.count("word") < 500
    assert not run.chat.busy


async def test_an_engine_that_does_not_answer_is_told_of_until_it_does(start: Start) -> None:
    run = await start(Reply("slow " * 20, hold_after=5, quiet=True))
    run.screen.prompt.put("first")
    await run.press("enter")
    await run.sees("the engine does not answer · Esc ends it")
    run.engine.go_on()
    await soon(lambda: not run.screen.activity.busy)
    assert "does not answer" not in run.text()


async def test_a_message_sent_during_a_reply_waits_for_its_end(start: Start) -> None:
    run = await start(Reply("slow " * 400, hold_after=100), "second reply")
    run.screen.prompt.put("first")
    await run.press("enter")
    await run.sees("slow")
    run.screen.prompt.put("second")
    await run.press("enter")
    await run.sees("your message is sent when this reply ends")
    run.engine.go_on()
    await run.sees("second reply")
    assert [t.raw_prompt for t in run.chat.conversation.turns] == ["first", "second"]
    assert "your message is sent" not in run.text()


async def test_escape_gives_a_waiting_message_back(start: Start) -> None:
    run = await start(Reply("slow " * 300, hold_after=100))
    run.screen.prompt.put("first")
    await run.press("enter")
    await run.sees("slow")
    run.screen.prompt.put("second")
    await run.press("enter")
    await run.sees("your message is sent")
    await run.press("escape")
    await run.sees("stopped")
    assert run.screen.prompt.text == "second"
    assert len(run.chat.conversation.turns) == 1


async def test_a_message_sent_while_the_model_loads_is_not_lost(start: Start) -> None:
    engine = FakeEngine(["the reply"])
    run = await start(engine=engine)
    engine.hold_load = True
    run.screen.models.load("/models/Other.gguf")
    await run.sees("Other", "loading")
    run.screen.prompt.put("early")
    await run.press("enter")
    await run.sees("your message is sent when the model is there")
    engine.hold_load = False
    engine.go_on()
    await run.sees("the reply")


async def test_regenerating_replaces_the_last_reply(start: Start) -> None:
    run = await start("the first reply", "the second reply")
    await run.ask("hi")
    await run.press("ctrl+r")
    await run.sees("the second reply")
    assert "the first reply" not in run.text()
    assert len(run.chat.conversation.turns) == 1
    assert run.engine.requests[1].messages == run.engine.requests[0].messages


async def test_editing_puts_the_message_back_and_sending_replaces_the_turn(start: Start) -> None:
    run = await start("about cats", "about dogs")
    await run.ask("tell me of cats")
    run.screen.prompt.put("a draft")
    await run.press("f4")
    await run.sees("editing your message")
    assert run.screen.prompt.text == "tell me of cats"
    run.screen.prompt.put("tell me of dogs")
    await run.press("enter")
    await run.sees("tell me of dogs", "about dogs")
    assert "about cats" not in run.text()
    assert [t.raw_prompt for t in run.chat.conversation.turns] == ["tell me of dogs"]


async def test_escape_leaves_editing_and_gives_the_draft_back(start: Start) -> None:
    run = await start("about cats")
    await run.ask("tell me of cats")
    run.screen.prompt.put("a draft")
    await run.press("f4")
    await run.sees("editing")
    await run.press("escape")
    await run.misses("editing")
    assert run.screen.prompt.text == "a draft"
    assert run.chat.conversation.turns[0].raw_prompt == "tell me of cats"


async def test_up_and_down_recall_earlier_prompts(start: Start) -> None:
    run = await start("ok")
    await run.ask("first one")
    await run.ask("second one")
    await run.press("up")
    assert run.screen.prompt.text == "second one"
    await run.press("up")
    assert run.screen.prompt.text == "first one"
    await run.press("up")
    assert run.screen.prompt.text == "first one"
    await run.press("down")
    assert run.screen.prompt.text == "second one"
    await run.press("down")
    assert run.screen.prompt.text == ""


async def test_up_in_a_text_being_written_moves_the_cursor(start: Start) -> None:
    run = await start("ok")
    await run.ask("first one")
    run.screen.prompt.put("line one\nline two")
    await run.press("up")
    assert run.screen.prompt.text == "line one\nline two"
    assert run.screen.prompt.cursor_location[0] == 0


async def test_prompts_of_earlier_runs_are_recalled(start: Start) -> None:
    run = await start("ok")
    await run.ask("from before")
    again = await start("ok")
    await again.until(lambda: again.screen.prompt.earlier)
    await again.press("ctrl+n")
    await again.until(lambda: not again.chat.conversation.turns)
    await again.press("up")
    assert again.screen.prompt.text == "from before"


async def test_a_failure_says_what_why_and_what_to_do_and_retries(start: Start) -> None:
    error = EngineError("The engine ended", "It was killed", "Try again")
    run = await start(Reply(error=error), "now it works")
    await run.ask("please")
    await run.sees("The engine ended", "It was killed", "Try again", "Ctrl+R")
    assert run.screen.prompt.text == "please"
    await run.press("ctrl+r")
    await run.sees("now it works")
    assert "The engine ended" not in run.text()
    assert run.screen.prompt.text == ""
    assert len(run.chat.conversation.turns) == 1


async def test_sending_again_what_failed_replaces_the_failed_turn(start: Start) -> None:
    run = await start(Reply(error=EngineError("The engine ended")), "now it works")
    await run.ask("please")
    await run.sees("The engine ended")
    await run.press("enter")
    await run.sees("now it works")
    assert "The engine ended" not in run.text()
    assert len(run.chat.conversation.turns) == 1


async def test_a_failure_in_the_middle_keeps_what_came(start: Start) -> None:
    error = EngineError("The engine ended", "", "Try again")
    run = await start(Reply("some words that came", error=error, error_after=3))
    await run.ask("please")
    await run.sees("some words that", "The engine ended")
    assert run.screen.prompt.text == ""


async def test_a_regeneration_that_fails_gives_the_old_reply_back(start: Start) -> None:
    run = await start("the good reply", Reply(error=EngineError("The engine ended")))
    await run.ask("hi")
    await run.press("ctrl+r")
    await run.until(lambda: len(run.engine.requests) == 2 and not run.chat.busy)
    await run.sees("the good reply")


async def test_an_engine_that_dies_leaves_the_conversation_and_a_retry(start: Start) -> None:
    run = await start(Reply("word " * 500, hold_after=100), "again")
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word")
    run.engine.kill(EngineError("The engine died", "Signal 9", "Try again"))
    await run.sees("The engine died", "Ctrl+R")
    await run.press("ctrl+r")
    await run.sees("again")


async def test_the_reader_is_not_moved_while_scrolled_up(start: Start) -> None:
    run = await start("line\n\n" * 60, Reply("more\n\n" * 100, hold_after=120), size=(90, 30))
    await run.ask("first")
    run.screen.prompt.put("second")
    await run.press("enter")
    await run.sees("more")
    await run.press("pageup", "pageup")
    await run.until(lambda: not run.screen.transcript.at_end)
    place = run.screen.transcript.scroll_y
    clock = re.compile(r"\d\d:\d\d")  # the minute may turn meanwhile
    seen = clock.sub("", run.lines()[3])
    run.engine.go_on()
    await run.until(lambda: not run.chat.busy)
    assert run.screen.transcript.scroll_y == place
    assert clock.sub("", run.lines()[3]) == seen
    await run.press("ctrl+end")
    await run.until(lambda: run.screen.transcript.at_end)


async def test_the_view_follows_the_end_of_a_reply(start: Start) -> None:
    run = await start("line\n\n" * 60 + "the very end")
    await run.ask("go")
    await run.sees("the very end")


async def test_a_nearly_full_context_is_said_in_words(start: Start) -> None:
    run = await start(engine=FakeEngine(["word " * 90], context=100))
    await run.ask("go")
    await run.sees("context nearly full", "tokens left")


async def test_an_empty_message_is_not_sent(start: Start) -> None:
    run = await start("ok")
    await run.type("   ")
    await run.press("enter")
    await asyncio.sleep(0.05)
    assert run.engine.requests == []
    await run.sees("Ask Fake")


async def test_a_question_of_the_guides_empty_screen_is_asked_by_a_click(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "guide_model", lambda: Path("/models/fake.gguf"))
    run = await start("an answer")
    await run.sees("What can you do?")
    row = next(y for y, line in enumerate(run.lines()) if "What can you do?" in line)
    column = run.lines()[row].index("What can") + 2
    await run.pilot.click(offset=(column, row))
    await run.sees("an answer")
    assert run.last.raw_prompt == "What can you do?"


async def test_another_model_gets_no_questions_of_ours(start: Start) -> None:
    run = await start("an answer")
    await run.sees("Ask Fake")
    assert "What can you do?" not in run.text()


async def test_what_the_program_says_never_looks_like_the_reply(start: Start) -> None:
    said = "This model runs on llama.cpp"
    run = await start(Reply("▌ it may try\n\nand so on", notice=said, reason="length"))
    await run.ask("go")
    await run.sees(f"▌ {said}", "▌ the reply reached its limit of tokens")
    lines = [line for line in run.lines() if "▌" in line]
    reply = run.screen.transcript.last_reply()
    assert reply is not None
    rows = [row.content.plain for row in reply.rows(reply.size.width)]
    assert f"▌ {said}" in rows and len(lines) >= 3
    whole = reply.get_selection(Selection(None, None))
    assert whole is not None and whole[0].strip() == "▌ it may try\n\nand so on"
    assert reply.copy_text() == run.last.reply
    assert said not in to_markdown(run.chat.conversation)
