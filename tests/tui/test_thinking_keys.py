"""The model's thinking on the screen: chosen by a key and in the palette, and ended by another one."""

from __future__ import annotations

import pytest

from engine.protocol import PartialSampling
from ktchat.screens.chat import keys
from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Running, Start

EFFORTS = ("low", "medium", "high")


def titles(run: Running) -> list[str]:
    """What the palette offers."""
    return [command.title for command in run.app.get_system_commands(run.screen)]


def header(run: Running) -> str:
    return run.lines()[0]


async def test_a_key_goes_through_what_the_model_offers(start: Start) -> None:
    run = await start(engine=FakeEngine(["a", "b"], think=EFFORTS), size=(80, 24))
    await run.until(lambda: "Q4_K_M · CPU · thinking: medium " in header(run))
    assert "0 of 4k" in header(run)
    await run.press("f7")
    await run.until(lambda: "thinking: high " in header(run))
    await run.ask("hard")
    await run.press("f7")
    await run.until(lambda: "thinking: low " in header(run))
    await run.ask("easy")
    assert [request.think for request in run.engine.requests] == ["high", "low"]
    again = await start(engine=FakeEngine(["c"], think=EFFORTS))
    await again.until(lambda: "thinking: low " in header(again))  # kept with the session
    await again.press("ctrl+n")
    await again.until(lambda: "thinking: medium " in header(again))


async def test_the_palette_offers_the_same_and_marks_what_holds(start: Start) -> None:
    run = await start(engine=FakeEngine(["a"], think=("off", "on")))
    await run.sees("thinking: on")
    commands = {command.title: command for command in run.app.get_system_commands(run.screen)}
    assert commands["Thinking: on"].help.endswith("as now")
    assert "Switch thinking" in commands and "Answer now" not in commands
    commands["Thinking: off"].callback()
    await run.sees("thinking: off")
    assert (await run.ask("hi")).reply == "a"
    assert run.engine.requests[0].think == "off"


async def test_a_click_on_the_header_chooses_the_next(start: Start) -> None:
    run = await start(engine=FakeEngine(["a"], think=("off", "on")))
    await run.sees("thinking: on")
    await run.pilot.click(run.screen.header, offset=(header(run).index("thinking") + 2, 0))
    await run.sees("thinking: off")


async def test_nothing_is_offered_where_there_is_no_choice(start: Start) -> None:
    run = await start("a", size=(160, 50))
    await run.until(lambda: "Q4_K_M · CPU " in header(run))
    assert "thinking:" not in header(run) and "F7" not in run.lines()[-1]
    assert not [title for title in titles(run) if "hinking:" in title or "Switch" in title]
    await run.press("f7")
    await run.sees("offers no choice of thinking")
    await run.ask("hi")
    assert run.engine.requests[0].think is None


async def test_another_model_without_the_choice_takes_it_from_the_header(start: Start) -> None:
    run = await start(engine=FakeEngine(["a"], think=EFFORTS))
    await run.press("f7")
    await run.sees("thinking: high")
    run.engine.think = ()
    run.screen.models.load("/models/Other.gguf")
    await run.until(lambda: "Other" in header(run) and "thinking:" not in header(run))
    await run.ask("hi")
    assert run.engine.requests[-1].think is None


async def test_a_long_header_keeps_the_choice_and_the_numbers(start: Start) -> None:
    name = "/models/Qwen3-235B-A22B-Thinking-2507-with-a-long-ending.gguf"
    engine = FakeEngine(["a"], think=("off", "on", "medium"), gpu="hybrid")
    run = await start(engine=engine, size=(80, 24), model=name)
    await run.until(lambda: "… · Q4_K_M · GPU and CPU · thinking: on" in header(run))
    assert "0 of 4k" in header(run)


async def test_where_there_is_no_room_the_numbers_stay(start: Start) -> None:
    run = await start(engine=FakeEngine(["a"], think=EFFORTS), size=(40, 14))
    await run.until(lambda: "Q4_K_M · CPU" in header(run))
    assert header(run).rstrip().endswith("0 of 4k") and "thinking" not in header(run)
    await run.press("f7")
    await run.sees("thinking: high")  # the status says it


# Answering at once.


@pytest.mark.parametrize("by", ["key", "click", "palette"])
async def test_the_answer_comes_at_once_when_it_is_wanted(start: Start, by: str) -> None:
    thinking = Reply("the answer", thinking="deep " * 300, hold_after=50)
    run = await start(thinking, "next", size=(80, 24))
    run.screen.prompt.put("why")
    await run.press("enter")
    await run.until(lambda: "F8 answer now" in run.lines()[-1])
    assert "Answer now" in titles(run)
    if by == "key":
        await run.press("f8")
    elif by == "click":
        at = run.lines()[-1].index("F8")
        await run.pilot.click(run.screen.key_bar, offset=(at, 0))
    else:
        commands = {c.title: c for c in run.app.get_system_commands(run.screen)}
        commands["Answer now"].callback()
    await run.sees("thought for", "the answer")
    await run.until(lambda: not run.chat.busy)
    assert run.last.state == "complete" and 1 <= run.last.thinking.count("deep") < 300
    assert "answer now" not in run.lines()[-1] and "Answer now" not in titles(run)
    await run.ask("more")
    roles = [message.content for message in run.engine.requests[-1].messages]
    assert roles == ["why", "the answer", "more"]


async def test_the_key_is_gone_when_the_answer_comes(start: Start) -> None:
    run = await start(Reply("word " * 200, thinking="short thought", hold_after=100))
    run.screen.prompt.put("why")
    await run.press("enter")
    await run.sees("word word")
    await run.until(lambda: "F8" not in run.lines()[-1])
    await run.press("f8")
    await run.sees("no reply is thinking")
    run.engine.go_on()
    await run.until(lambda: not run.chat.busy)
    assert run.last.reply.count("word") == 200


async def test_text_that_proves_to_be_thinking_is_folded_away(start: Start) -> None:
    run = await start(Reply("Hello there", unopened="I plan this first", hold_after=4))
    run.screen.prompt.put("hi")
    await run.press("enter")
    await run.until(lambda: "thought" in run.text())
    run.engine.go_on()
    await run.sees("4 tokens", "Hello there")
    assert "I plan" not in run.text()
    await run.press("ctrl+t")
    await run.sees("I plan this first", "Hello there")


async def test_the_sampling_and_where_it_comes_from_are_said(start: Start) -> None:
    own = PartialSampling(temperature=0.6, top_k=20)
    run = await start(engine=FakeEngine(["a"], own_sampling=own))
    run.screen.context.settings.update(top_k=5, top_p=0.5)
    again = await start(engine=FakeEngine(["a"], own_sampling=own))
    commands = {c.title: c for c in again.app.get_system_commands(again.screen)}
    commands["Sampling"].callback()
    await again.sees("temperature 0.6 (the")
    words = again.screen.status.words
    assert "temperature 0.6 (the model's file) · top-k 20 (the model's file) · top-p 0.5" in words
    assert "top-p 0.5 (everywhere) · min-p 0.05 (built in)" in words


def test_the_help_has_both_keys() -> None:
    shown = {key.shown: key.help for key in keys.KEYS}
    assert "F7" in shown and "F8" in shown
    assert len({key.key for key in keys.KEYS if key.key}) == sum(bool(key.key) for key in keys.KEYS)
