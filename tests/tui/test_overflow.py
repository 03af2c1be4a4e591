"""A conversation that fills the context, walked by keyboard alone at 80×24 with the real engine and the guide."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from engine.client import Engine
from ktchat.attachments.attachment import Draft
from ktchat.common.paths import guide_model
from ktchat.common.settings import SettingsFile
from ktchat.session.compaction import unsent
from ktchat.store.conversation import EVERYTHING, Compaction, Conversation
from ktchat.widgets.chat.unread_line import UnreadLine
from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Running, Start

pytestmark = pytest.mark.xdist_group("guide")

SIZE = (80, 24)
CONTEXT = 512
WORDS = "The quick brown fox jumps over the lazy dog near the river bank. " * 3

Real = Callable[..., Awaitable[Running]]


@pytest.fixture
async def real(start: Start, home: Path) -> AsyncIterator[Real]:
    engines: list[Engine] = []

    async def begin(**settings: object) -> Running:
        file = SettingsFile(home / "settings.toml")
        chosen = {"context": CONTEXT, "temperature": 0.0, "max_tokens": 24, "disk_cache": False}
        file.update(**chosen | settings)
        engines.append(Engine())
        return await start(size=SIZE, engine=engines[-1], model=str(guide_model()))  # type: ignore[arg-type]

    yield begin
    for engine in engines:
        await engine.close()


async def fill(run: Running) -> str:
    """Talk until the next message has no room; that message, which is in the prompt behind a sheet."""
    for number in range(12):
        before = len(run.chat.conversation.turns)
        text = f"{number} {WORDS}".strip()
        run.screen.prompt.put(text)
        await run.press("enter")
        await run.until(
            lambda before=before: (
                run.app.screen is not run.screen
                or (len(run.chat.conversation.turns) > before and not run.screen.activity.busy)
            )
        )
        if run.app.screen is not run.screen:
            return text
    raise AssertionError("the context never filled")


async def replied(run: Running, turns: int) -> None:
    await run.until(
        lambda: len(run.chat.conversation.turns) == turns and not run.screen.activity.busy
    )


def words(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.raw_prompt, turn.raw_reply) for turn in conversation.turns]


async def test_the_sheet_says_what_each_way_costs_and_esc_leaves_all_as_it_was(real: Real) -> None:
    run = await real()
    text = await fill(run)
    await run.sees("The message does not fit", "Drop the", "frees", "again", "Summarise the")
    await run.sees("A longer context: 1k tokens", "needs", "loads again", "A new session")
    await run.sees("“0 The quick brown fox", "Esc leave all as it was")
    before = copy.deepcopy(run.chat.conversation)
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen and not run.screen.activity.busy)
    assert run.screen.prompt.text == text and run.chat.draft.text == text
    assert run.chat.conversation == before
    await run.press("enter")
    await run.sees("The message does not fit")


async def test_dropping_dims_what_is_no_longer_read_and_undo_is_exact(real: Real) -> None:
    run = await real()
    text = await fill(run)
    before, turns = words(run.chat.conversation), len(run.chat.conversation.turns)
    await run.press("enter")
    await replied(run, turns + 1)
    last = run.last
    assert last.raw_prompt == text and last.raw_reply and run.screen.prompt.text == ""
    assert last.compaction is not None and 0 < last.compaction.unread <= turns
    assert words(run.chat.conversation)[:-1] == before
    await run.sees("oldest turns are no longer read", "undo")
    await run.press("shift+tab")
    for _ in range(2 * turns):
        if isinstance(run.screen.focused, UnreadLine):
            break
        await run.press("up")
    await run.sees("no longer read", "bring back")
    await run.press("u")
    await run.sees("more are read again")
    assert run.chat.conversation.compaction == EVERYTHING
    sent = [message.content for message in run.chat.conversation.messages()]
    assert sent == [part for pair in words(run.chat.conversation) for part in pair]
    assert not list(run.screen.query(UnreadLine))
    stored = run.chat.store
    await run.chat.saver.flush()
    assert stored.load(run.chat.conversation.id).messages() == run.chat.conversation.messages()


async def test_a_summary_is_written_changed_and_sent(real: Real) -> None:
    run = await real()
    await fill(run)
    turns = len(run.chat.conversation.turns)
    await run.press("down", "enter")
    await run.sees("Summary of", "Enter take it")
    await run.press("ctrl+j")
    await run.type("my own words")
    await run.press("enter")
    await replied(run, turns + 1)
    assert run.last.compaction is not None
    assert run.last.compaction.summary.endswith("my own words")
    assert "my own words" in run.chat.conversation.messages()[0].content
    assert run.screen.query_one(UnreadLine).compaction == run.last.compaction
    await run.sees("are summarised", "undo")


async def test_leaving_a_summary_leaves_all_as_it_was(real: Real) -> None:
    run = await real()
    text = await fill(run)
    before = copy.deepcopy(run.chat.conversation)
    await run.press("down", "enter")
    await run.sees("Summary of")
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen and not run.screen.activity.busy)
    assert run.chat.conversation == before and run.screen.prompt.text == text
    assert not run.chat.busy
    await run.press("enter")
    await run.sees("The message does not fit")


async def test_a_longer_context_is_loaded_and_everything_is_read(real: Real) -> None:
    run = await real()
    await fill(run)
    turns = len(run.chat.conversation.turns)
    await run.sees("A longer context: 1k tokens")
    await run.press("down", "down", "enter")
    await replied(run, turns + 1)
    assert run.chat.context_size == 2 * CONTEXT and run.last.compaction is None
    assert run.last.raw_reply


async def test_a_new_session_begins_with_the_summary(real: Real) -> None:
    run = await real()
    text = await fill(run)
    old = copy.deepcopy(run.chat.conversation)
    await run.sees("A longer context: 1k tokens")
    await run.press("down", "down", "down", "enter")
    await run.sees("Summary of", "Enter take it")
    await run.press("enter")
    await run.until(lambda: run.chat.conversation.id != old.id)
    await replied(run, 1)
    assert run.last.raw_prompt == text and run.last.compaction is not None
    assert run.last.compaction.unread == 0 and run.last.compaction.summary
    await run.sees("begins with a summary")
    kept = run.chat.store.load(old.id)
    assert words(kept) == words(old) and kept.messages() == old.messages()
    assert run.chat.store.draft(old.id).text == ""


@pytest.mark.parametrize("policy", ["drop", "summarise"])
async def test_three_times_the_context_is_held_to_its_end_without_asking(
    real: Real, policy: str
) -> None:
    run = await real(overflow=policy, context=256, max_tokens=12)
    for number in range(14):
        run.screen.prompt.put(f"{number} {WORDS}")
        await run.press("enter")
        await replied(run, number + 1)
        assert run.last.state == "complete", run.last.error
    figures = [turn.figures for turn in run.chat.conversation.turns]
    said = sum(f.prompt_tokens - f.cached_tokens + f.reply_tokens for f in figures if f)
    assert said > 3 * 256
    assert sum(turn.compaction is not None for turn in run.chat.conversation.turns) >= 3


async def test_always_keeps_the_choice(real: Real) -> None:
    run = await real()
    await fill(run)
    turns = len(run.chat.conversation.turns)
    await run.press("ctrl+a", "enter")
    await replied(run, turns + 1)
    assert run.app.context.settings.settings.overflow == "drop"


async def test_what_is_typed_on_is_the_next_message_and_its_enter_chooses_nothing(
    real: Real,
) -> None:
    run = await real()
    text = await fill(run)
    turns = len(run.chat.conversation.turns)
    await run.type("next one")
    await run.press("enter")
    await run.sees("Enter again chooses")
    assert run.screen.prompt.text == f"{text}\nnext one"
    await run.press("enter")
    await replied(run, turns + 1)
    assert run.last.raw_prompt == text
    assert run.screen.prompt.text == "next one"


async def test_stop_says_why_and_keeps_the_message(real: Real) -> None:
    run = await real(overflow="stop", context=256)
    text = f"hi {WORDS * 4}".strip()
    run.screen.prompt.put(text)
    await run.press("enter")
    await run.sees("does not fit into the context", "too many")
    assert run.screen.prompt.text == text and not run.chat.conversation.turns


async def test_the_draft_is_counted_while_one_types(real: Real) -> None:
    run = await real(context=256)
    await run.type("hi")
    assert run.screen.prompt.border_subtitle == ""
    run.screen.prompt.put(WORDS)
    await run.until(lambda: " left" in str(run.screen.prompt.border_subtitle))
    counted = await run.chat.engine.count(run.chat.conversation.messages() or [], None)
    assert counted is None
    await run.sees(" left")
    run.screen.prompt.put(WORDS * 5)
    await run.sees(" too many")
    run.screen.prompt.put("")
    await run.misses(" too many")


async def test_a_reply_cut_by_the_context_goes_on_after_the_same_sheet(real: Real) -> None:
    run = await real(context=256, max_tokens=0, overflow="stop")
    run.screen.prompt.put("hi")
    await run.press("enter")
    await replied(run, 1)
    text = "fox"
    while (tokens := await prompt_tokens(run, text)) < 250:
        text += " fox"
    assert tokens < 256
    run.screen.prompt.put(text)
    await run.press("enter")
    await replied(run, 2)
    assert run.last.reason == "context"
    cut = copy.deepcopy(run.last)
    await run.sees("the context is full", "F9")
    run.app.context.remember(overflow="ask")
    await run.press("f9")
    await run.sees("The reply does not fit", "Drop the oldest turn")
    assert "A new session" not in run.text()
    await run.press("enter")
    await run.until(lambda: run.last.id != cut.id and not run.screen.activity.busy)
    assert run.last.raw_reply.startswith(cut.raw_reply) and run.last.compaction == Compaction(1)
    assert len(run.last.raw_reply) > len(cut.raw_reply)
    assert cut in run.chat.conversation.others


async def prompt_tokens(run: Running, text: str) -> int:
    counted = await run.chat.count(unsent(run.chat.conversation, Draft(text)).messages())
    assert counted is not None and counted.tokens is not None
    return counted.tokens


async def test_a_reply_that_repeats_itself_is_stopped_and_goes_on_by_a_key(start: Start) -> None:
    engine = FakeEngine([Reply("same " * 20, reason="repeats"), "and on"])
    run = await start(engine=engine, size=SIZE)
    await run.ask("go")
    await run.sees("it said the same again and again", "F9 goes on")
    assert engine.requests[-1].watch
    await run.press("f9")
    await run.until(lambda: run.last.raw_reply.endswith("and on"))
    assert not engine.requests[-1].watch
