"""The prompt: clearing and undoing, selecting, the start and the end, earlier prompts, commands by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktchat.store.conversation import Conversation, Turn
from ktchat.store.store import Store
from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Running, Start


async def call(run: Running, text: str) -> None:
    """Type a command and send it."""
    await run.type(text)
    if run.screen.suggestions.is_open:
        await run.press("escape")
    await run.press("enter")


# Keys.


@pytest.mark.parametrize("keys", [("ctrl+u",), ("escape", "escape")])
async def test_the_prompt_is_cleared_and_undo_brings_it_back(
    start: Start, keys: tuple[str, ...]
) -> None:
    run = await start("ok")
    await run.type("half a thought")
    await run.press(*keys)
    assert run.screen.prompt.text == ""
    await run.press("ctrl+z")
    assert run.screen.prompt.text == "half a thought"


async def test_one_escape_clears_nothing_and_says_what_a_second_does(start: Start) -> None:
    run = await start("ok")
    await run.type("half")
    await run.press("escape")
    await run.sees("Esc again clears the prompt")
    await run.type("s")
    await run.press("escape")
    assert run.screen.prompt.text == "halfs", "what was typed between them begins anew"
    await run.press("escape")
    assert run.screen.prompt.text == ""


async def test_an_escape_that_stops_a_reply_is_no_first_one(start: Start) -> None:
    run = await start(Reply("word " * 500, hold_after=50))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word")
    await run.type("next")
    await run.press("escape")
    await run.sees("stopped")
    await run.press("escape")
    assert run.screen.prompt.text == "next"


async def test_select_all_and_the_two_ends(start: Start) -> None:
    run = await start("ok")
    prompt = run.screen.prompt
    prompt.put("first line\nsecond line")
    await run.press("home")
    assert prompt.cursor_location == (1, 0)
    await run.press("home")
    assert prompt.cursor_location == (0, 0)
    await run.press("end")
    assert prompt.cursor_location == (0, 10)
    await run.press("end")
    assert prompt.cursor_location == (1, 11)
    await run.press("shift+home")
    assert prompt.selected_text == "second line"
    await run.press("ctrl+a")
    assert prompt.selected_text == "first line\nsecond line"
    await run.type("x")
    assert prompt.text == "x"


async def test_earlier_prompts_of_all_sessions_are_searched(start: Start) -> None:
    run = await start("ok")
    await run.ask("tell me of zebras")
    await run.press("ctrl+n")
    await run.until(lambda: not run.chat.conversation.turns)
    await run.ask("tell me of lions\nand more")
    await run.press("ctrl+n")
    await run.until(lambda: not run.chat.conversation.turns)
    await run.press("ctrl+s")
    await run.sees("Earlier prompts of all sessions", "2 prompts", "tell me of lions and more")
    await run.type("zeb")
    await run.sees("1 prompt")
    await run.press("enter")
    await run.until(lambda: run.screen.prompt.text == "tell me of zebras")
    await run.press("ctrl+s")
    await run.sees("1 prompt")
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen)
    assert run.screen.prompt.text == "tell me of zebras"


def test_prompts_of_deleted_sessions_are_not_found(home: Path) -> None:
    store = Store(home / "ktchat.db")
    for number, text in enumerate(("one of zebras", "two of zebras")):
        turn = Turn(text, created=1.0 + number)
        store.save_conversation(Conversation(id=text[:3] * 8, turns=[turn]))
    assert store.recent_prompts(words="zebras") == ["two of zebras", "one of zebras"]
    store.delete("one" * 8)
    assert store.recent_prompts(words="Zebras OF") == ["two of zebras"]
    assert store.recent_prompts(words="lions") == []
    store.close()


# Commands.


async def test_a_slash_opens_the_commands_and_keys_choose(start: Start) -> None:
    run = await start("ok", size=(80, 24))
    await run.type("/")
    await run.sees("/new", "/model NAME", "/system TEXT", "/temp VALUE", "Enter take")
    await run.type("ex")
    await run.until(lambda: "/export FORM" in run.text() and "/new" not in run.text())
    await run.press("tab")
    assert run.screen.prompt.text == "/export "
    await run.sees("markdown", "json", "html")
    await run.press("escape")
    await run.misses("markdown")
    assert run.screen.prompt.text == "/export "
    assert not run.engine.requests


async def test_enter_does_what_is_chosen(start: Start) -> None:
    run = await start("a reply")
    await run.ask("hi")
    await run.type("/ne")
    await run.sees("/new")
    await run.press("enter")
    await run.until(lambda: not run.chat.conversation.turns)
    assert run.screen.prompt.text == ""
    assert len(run.engine.requests) == 1
    await run.type("/he")
    await run.press("enter")
    await run.sees("Keys", "Ctrl+R")
    await run.press("end")
    await run.sees("/think")


async def test_the_list_is_walked_round(start: Start) -> None:
    run = await start("ok")
    await run.type("/e")
    listed = run.screen.suggestions
    await run.until(lambda: listed.is_open)
    names = [item.name for item in listed._items]
    assert names[:3] == ["/export FORM", "/editor", "/edit"]
    await run.press("up")
    assert listed.highlighted == len(names) - 1
    await run.press("down", "down")
    assert listed.highlighted == 1


async def test_an_unknown_command_is_told_and_not_sent_unless_it_is_meant(start: Start) -> None:
    run = await start("a reply")
    await call(run, "/frobnicate all of it")
    await run.sees("there is no command /frobnicate", "Enter again sends it as text")
    assert run.screen.prompt.text == "/frobnicate all of it"
    assert not run.engine.requests
    await run.press("enter")
    await run.until(lambda: run.engine.requests)
    assert run.last.raw_prompt == "/frobnicate all of it"


async def test_a_path_or_a_comment_at_the_beginning_is_no_command(start: Start) -> None:
    run = await start("one", "two")
    await run.ask("/etc/hosts is what?")
    await run.ask("// a comment")
    assert [turn.raw_prompt for turn in run.chat.conversation.turns] == [
        "/etc/hosts is what?",
        "// a comment",
    ]


async def test_what_follows_a_name_is_its_argument(start: Start) -> None:
    run = await start("one", "two", engine=FakeEngine(["one", "two"], think=("off", "high")))
    await call(run, "/system Be short. And kind.")
    await run.sees("the system message holds from the next message on")
    await run.ask("hi")
    assert run.engine.requests[0].messages[0].content == "Be short. And kind."
    await call(run, "/system")
    await run.sees("system: Be short. And kind.")
    await call(run, "/think high")
    await run.sees("thinking: high")
    assert run.chat.conversation.think == "high"
    await call(run, "/think sideways")
    await run.sees("the model's template offers off, high")
    await call(run, "/rename Short talk")
    await run.until(lambda: run.chat.conversation.title == "Short talk")
    await call(run, "/new session please")
    await run.sees("/new takes nothing behind it")
    assert run.screen.prompt.text == "/new session please"
    assert len(run.engine.requests) == 1


async def test_a_model_is_loaded_by_name(start: Start, home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    for name in ("Qwen3-30B-A3B-Q4_K_M.gguf", "Qwen3-4B-Q8_0.gguf", "gpt-oss-20b.gguf"):
        (folder / name).write_bytes(b"GGUF")
    run = await start("ok")
    await call(run, "/model oss")
    await run.until(lambda: run.engine.loads[-1].path.endswith("gpt-oss-20b.gguf"))
    await run.until(lambda: not run.screen.activity.loading)
    await call(run, "/model qwen3")
    await run.sees("More than one model is called so")
    await call(run, "/model llama")
    await run.sees("There is no model llama here")


async def test_no_command_is_meant_while_a_message_is_edited(start: Start) -> None:
    run = await start("one", "two")
    await run.ask("hi")
    await run.press("f4")
    await run.sees("editing your message")
    run.screen.prompt.put("/new")
    assert not run.screen.suggestions.is_open
    await run.press("enter")
    await run.until(lambda: len(run.engine.requests) == 2)
    assert run.engine.requests[1].messages[-1].content == "/new"


async def test_compact_summarises_all_but_the_last_turn(start: Start) -> None:
    run = await start("first reply", "second reply", "they spoke of words", "third reply")
    await call(run, "/compact")
    await run.sees("there is nothing to summarise yet")
    await run.ask("first")
    await call(run, "/compact")
    await run.sees("the last turn is read as it is")
    await run.ask("second")
    await call(run, "/compact")
    await run.sees("Summary of the oldest turn", "they spoke of words", "Enter take it")
    await run.press("enter")
    await run.sees("the oldest turn is summarised")
    await run.ask("third")
    said = [message.content for message in run.engine.requests[-1].messages]
    assert "they spoke of words" in said[0] and "first" not in "".join(said)
    await call(run, "/bring-back")
    await run.until(lambda: run.chat.conversation.compaction.unread == 0)


async def test_every_name_is_one_and_has_help(start: Start) -> None:
    run = await start("ok")
    named = [command for command in run.screen.slash.listed() if command.slash]
    names = [command.slash for command in named]
    assert len(set(names)) == len(names)
    assert {"new", "model", "system", "think", "file", "export", "compact", "help"} <= set(names)
    for command in named:
        assert command.help and command.slash.replace("-", "").isalpha()
        assert bool(command.argument) == (command.take is not None)


async def test_the_list_leaves_room_for_the_prompt_on_a_small_screen(start: Start) -> None:
    run = await start("ok", size=(40, 12))
    await run.type("/")
    await run.sees("/new", "/model NAME", "│ /", "Enter take")
