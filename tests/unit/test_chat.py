"""The chat itself, over a scripted engine and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from engine.errors import ContextError, EngineError, KtchatError, RequestError, ThinkingError
from engine.protocol import (
    Failed,
    Finished,
    Load,
    Loaded,
    Message,
    Notice,
    PartialSampling,
    Prefilled,
    Progress,
    Text,
    Thinking,
    WasThinking,
)
from ktchat.attachments.attachment import Draft
from ktchat.common.errors import SessionBusyError, UnknownSessionError
from ktchat.common.precedence import Layers
from ktchat.session.chat import ChatSession, Started, Update
from ktchat.store import store as stores
from ktchat.store.store import Store
from tests.support.clock import PATIENCE, assert_within, soon
from tests.support.fake_engine import FakeEngine, Reply

Start = Callable[..., Awaitable[ChatSession]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a chat on the store of this test; each call is another running program."""
    started: list[ChatSession] = []

    async def begin(*script: Reply | str, model: str = "Fake") -> ChatSession:
        engine = FakeEngine(script)
        chat = ChatSession(engine, Store(tmp_path / "ktchat.db"))
        started.append(chat)
        async for _ in chat.load(Load(f"/m/{model}.gguf")):
            pass
        return chat

    yield begin
    for chat in started:
        await chat.close()


async def all_of(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


def on_disk(chat: ChatSession) -> list[tuple[str, str, str]]:
    """The open session as another program sees it."""
    other = Store(chat.store.path)
    try:
        turns = other.load(chat.conversation.id).turns
        return [(turn.raw_prompt, turn.raw_reply, turn.state) for turn in turns]
    finally:
        other.close()


def asked(chat: ChatSession) -> list[str]:
    """What the engine was asked last, as `role: text` lines."""
    assert isinstance(chat.engine, FakeEngine)
    return [f"{m.role}: {m.content}" for m in chat.engine.requests[-1].messages]


# A message and its reply.


async def test_a_message_brings_its_reply(start: Start) -> None:
    chat = await start(Reply("Hello there.", thinking="a greeting", prefill_steps=2, notice="hm"))
    updates = await all_of(chat.send("hi"))
    kinds = [type(update) for update in updates]
    assert kinds[:4] == [Started, Progress, Progress, Prefilled]
    assert kinds[4:] == [Notice, Thinking, Thinking, Text, Text, Finished]
    turn = chat.conversation.turns[0]
    assert (turn.reply, turn.thinking, turn.state) == ("Hello there.", "a greeting", "complete")
    assert turn.figures is not None and turn.figures.reply_tokens == 4
    assert turn.model == chat.conversation.model_name == "Fake"
    assert chat.conversation.title == "hi"
    assert chat.context_used == turn.figures.context_used > 0
    assert chat.context_size == 4096
    assert not chat.busy


async def test_the_third_message_carries_the_first_two(start: Start) -> None:
    chat = await start("first", Reply("second", thinking="hidden"), "third")
    chat.conversation.system = "Be short."
    for prompt in ("one", "two", "three"):
        await all_of(chat.send(prompt))
    assert asked(chat) == [
        *("system: Be short.", "user: one", "assistant: first"),
        *("user: two", "assistant: second", "user: three"),
    ]


async def test_sampling_and_limit_reach_the_engine(start: Start) -> None:
    chat = await start("a b c d e")
    chat.layers_of = lambda path: Layers(command={"seed": 7}, everywhere={"max_tokens": 2})
    updates = await all_of(chat.send("hi"))
    assert isinstance(updates[-1], Finished) and updates[-1].reason == "length"
    request = chat.engine.requests[0]  # type: ignore[attr-defined]
    assert (request.sampling.seed, request.max_tokens) == (7, 2)
    assert chat.conversation.turns[0].sampling.seed == 7


async def test_the_message_is_on_the_disk_before_the_engine_is_asked(start: Start) -> None:
    chat = await start("reply")
    seen: list[tuple[str, str, str]] = []
    generate = chat.engine.generate

    def spying(*args: object, **options: object) -> AsyncIterator[object]:
        seen.extend(on_disk(chat))
        return generate(*args, **options)  # type: ignore[arg-type]

    chat.engine.generate = spying  # type: ignore[assignment, method-assign]
    await all_of(chat.send("hi"))
    assert seen == [("hi", "", "streaming")]
    assert on_disk(chat) == [("hi", "reply", "complete")]


async def test_the_reply_is_on_the_disk_in_steps(start: Start) -> None:
    chat = await start(Reply("word " * 60, token_seconds=0.02))
    lengths: list[int] = []
    async for update in chat.send("hi"):
        if isinstance(update, Text):
            turn = chat.conversation.turns[0]
            lengths.append(len(turn.raw_reply) - len(on_disk(chat)[0][1]))
    assert_within(max(lengths), 5 * 0.35 / 0.02)


async def test_nothing_is_saved_before_the_first_message(start: Start) -> None:
    chat = await start("a")
    await chat.new()
    assert chat.store.sessions() == []
    await all_of(chat.send("hi"))
    assert [session.title for session in chat.store.sessions()] == ["hi"]


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_an_empty_message_is_refused(start: Start, text: str) -> None:
    chat = await start("a")
    with pytest.raises(RequestError):
        chat.send(text)
    assert chat.conversation.turns == []


async def test_one_reply_at_a_time(start: Start) -> None:
    chat = await start(Reply("a b c", hold_after=1))
    async with aclosing(chat.send("hi")) as updates:
        await anext(updates)
        assert chat.busy
        for call in (lambda: chat.send("b"), chat.regenerate, lambda: chat.edit("c")):
            with pytest.raises(RequestError, match="A reply is being written"):
                call()
        for change in (chat.new(), chat.open("x" * 32)):
            with pytest.raises(RequestError, match="A reply is being written"):
                await change
        refused = [event async for event in chat.load(Load("/m/other.gguf"))]
        assert isinstance(refused[0], Failed)
    await asyncio.wait_for(chat.wait_idle(), PATIENCE)
    assert not chat.busy


async def test_model_text_is_safe_to_draw_and_raw_in_the_file(start: Start) -> None:
    bad = "a \x1b]52;c; QUJD\x07 b \x1b [31m \u202e c"
    chat = await start(Reply(bad, thinking=bad, notice="n\x1b[31m\n\n"))
    updates = await all_of(chat.send("hi"))
    drawn = "".join(u.text for u in updates if isinstance(u, Text | Thinking | Notice))
    assert not set(drawn) & set("\x1b\x07\u202e")
    assert chat.conversation.turns[0].raw_reply == bad
    assert on_disk(chat)[0][1] == bad


# Stopping.


async def test_stopping_keeps_what_came(start: Start) -> None:
    chat = await start(Reply("one two three four", hold_after=1), "next")
    async for update in chat.send("hi"):
        if isinstance(update, Text):
            chat.stop()
    assert isinstance(update, Finished) and update.reason == "cancelled"
    assert on_disk(chat) == [("hi", "one", "stopped")]
    await all_of(chat.send("more"))
    assert asked(chat) == ["user: hi", "assistant: one", "user: more"]


async def test_stopping_before_the_engine_is_asked(start: Start) -> None:
    chat = await start("never said", "next")
    async for update in chat.send("hi"):
        if isinstance(update, Started):
            chat.stop()
    assert isinstance(update, Finished) and update.reason == "cancelled"
    assert chat.conversation.turns[0].state == "stopped"
    assert chat.engine.requests == []  # type: ignore[attr-defined]
    await all_of(chat.send("more"))
    assert asked(chat) == ["user: hi\n\nmore"]


async def test_stopping_while_the_prompt_is_read(start: Start) -> None:
    chat = await start(Reply("x", prefill_steps=6000, prefill_seconds=300.0))
    updates = chat.send("hi")
    await anext(updates)
    waiting = asyncio.create_task(anext(updates))
    await asyncio.sleep(0.01)
    chat.stop()
    rest = [await waiting, *await all_of(updates)]
    assert isinstance(rest[-1], Finished) and rest[-1].reason == "cancelled"


async def test_a_reader_that_goes_away_stops_the_engine(start: Start) -> None:
    chat = await start(Reply("a b c d", hold_after=1))
    async with aclosing(chat.send("hi")) as updates:
        async for update in updates:
            if isinstance(update, Text):
                break
    assert not chat.busy
    await chat.saver.flush()
    assert on_disk(chat) == [("hi", "a", "interrupted")]


async def test_a_cancelled_reader_leaves_the_chat_usable(start: Start) -> None:
    chat = await start(Reply("a b c d", token_seconds=0.05), "next")
    for delay in (0.0, 0.001, 0.03, 0.12):
        task = asyncio.create_task(all_of(chat.send("hi")))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        assert not chat.busy
    assert await all_of(chat.send("again"))
    assert chat.conversation.turns[-1].state == "complete"


# Failing.


async def test_a_failure_before_the_first_word_leaves_the_message_out(start: Start) -> None:
    too_long = ContextError("The prompt is too long", "It has 9 000 tokens", "Shorten it")
    chat = await start(Reply(error=too_long), "reply")
    updates = await all_of(chat.send("lost"))
    assert isinstance(updates[-1], Failed) and isinstance(updates[-1].error, ContextError)
    turn = chat.conversation.turns[0]
    assert turn.without_reply and turn.prompt == "lost"
    await all_of(chat.send("other"))
    assert asked(chat) == ["user: other"]
    assert [state for *_, state in on_disk(chat)] == ["failed", "complete"]


async def test_sending_what_failed_again_replaces_the_failed_turn(start: Start) -> None:
    chat = await start(Reply(error=EngineError("It died")), "reply")
    await all_of(chat.send("hi"))
    failed = chat.conversation.turns[0]
    updates = await all_of(chat.send("hi"))
    assert updates[0] == Started(chat.conversation.turns[0], replaced=failed)
    assert on_disk(chat) == [("hi", "reply", "complete")]


async def test_a_failure_in_the_middle_keeps_what_came(start: Start) -> None:
    chat = await start(Reply("a b c", error=EngineError("It\x1b[31m died"), error_after=2), "ok")
    updates = await all_of(chat.send("hi"))
    assert isinstance(updates[-1], Failed) and str(updates[-1].error) == "It died."
    assert on_disk(chat) == [("hi", "a b", "failed")]
    await all_of(chat.send("go on"))
    assert asked(chat) == ["user: hi", "assistant: a b", "user: go on"]


async def test_an_engine_that_breaks_its_word_is_a_failure(start: Start) -> None:
    chat = await start("x")

    async def raising(*args: object, **options: object) -> AsyncIterator[Text]:
        yield Text("a")
        raise EngineError("The pipe broke")

    async def silent(*args: object, **options: object) -> AsyncIterator[Text]:
        yield Text("b")

    for generate in (raising, silent):
        chat.engine.generate = generate  # type: ignore[assignment, method-assign]
        updates = await all_of(chat.send("hi"))
        assert isinstance(updates[-1], Failed)
        assert chat.conversation.turns[-1].state == "failed"
    assert not chat.busy


async def test_without_a_model_the_message_is_not_lost(start: Start) -> None:
    chat = await start("x")
    await chat.engine.close()
    updates = await all_of(chat.send("hi"))
    assert isinstance(updates[-1], Failed)
    assert on_disk(chat) == [("hi", "", "failed")]


# Regenerating and editing.


async def test_regenerating_replaces_the_reply_and_keeps_the_old_one_in_the_file(
    start: Start,
) -> None:
    chat = await start("one", "two", "better")
    await all_of(chat.send("a"))
    await all_of(chat.send("b"))
    old = chat.conversation.turns[-1]
    updates = await all_of(chat.regenerate())
    assert isinstance(updates[0], Started) and updates[0].replaced is old
    assert chat.conversation.turns[-1].created == old.created, "the message is as old as it was"
    assert asked(chat) == ["user: a", "assistant: one", "user: b"]
    assert [t.reply for t in chat.conversation.turns] == ["one", "better"]
    shown, replaced = chat.store.load_all(chat.conversation.id)
    assert [t.reply for t in shown.turns] == ["one", "better"]
    assert [t.reply for t in replaced] == ["two"]


async def test_a_regeneration_that_fails_gives_the_old_reply_back(start: Start) -> None:
    chat = await start("one", Reply(error=EngineError("It died")), "better")
    await all_of(chat.send("a"))
    updates = await all_of(chat.regenerate())
    assert isinstance(updates[-1], Failed)
    assert on_disk(chat) == [("a", "one", "complete")]
    await all_of(chat.regenerate())
    assert on_disk(chat) == [("a", "better", "complete")]


async def test_a_regeneration_stopped_at_once_gives_the_old_reply_back(start: Start) -> None:
    chat = await start("one", Reply("two", hold_after=0))
    await all_of(chat.send("a"))
    async for update in chat.regenerate():
        if isinstance(update, Prefilled):
            chat.stop()
    assert on_disk(chat) == [("a", "one", "complete")]


async def test_editing_replaces_the_message_and_keeps_the_old_one_in_the_file(
    start: Start,
) -> None:
    chat = await start("one", "two")
    await all_of(chat.send("a"))
    await all_of(chat.edit("a, better"))
    assert asked(chat) == ["user: a, better"]
    assert on_disk(chat) == [("a, better", "two", "complete")]
    _, replaced = chat.store.load_all(chat.conversation.id)
    assert [turn.raw_prompt for turn in replaced] == ["a"]


async def test_there_is_nothing_to_regenerate_or_edit_at_first(start: Start) -> None:
    chat = await start("x")
    for call in (chat.regenerate, lambda: chat.edit("a")):
        with pytest.raises(RequestError):
            call()


# Sessions.


async def test_a_session_goes_on_after_a_restart(start: Start) -> None:
    chat = await start("first")
    await all_of(chat.send("one"))
    await chat.close()
    again = await start("second")
    await again.open(chat.conversation.id)
    await all_of(again.send("two"))
    assert asked(again) == ["user: one", "assistant: first", "user: two"]
    assert len(on_disk(again)) == 2


async def test_a_reply_that_was_being_written_is_marked_interrupted(start: Start) -> None:
    chat = await start(Reply("a b c d e f", hold_after=1))
    updates = chat.send("one")
    async for update in updates:
        if isinstance(update, Text):
            break
    await chat.saver.flush()
    chat.store.locks.release_all()  # as the death of the process does
    again = await start("next")
    turn = (await again.open(chat.conversation.id)).turns[0]
    assert (turn.state, turn.reply) == ("interrupted", "a")
    await again.saver.flush()
    assert on_disk(again) == [("one", "a", "interrupted")]
    await updates.aclose()


async def test_closing_in_the_middle_interrupts_and_saves(start: Start) -> None:
    chat = await start(Reply("a b c d e f", hold_after=2))
    texts = 0

    async def read() -> None:
        nonlocal texts
        async for update in chat.send("one"):
            texts += isinstance(update, Text)

    reader = asyncio.create_task(read())
    await soon(lambda: texts == 2)
    await asyncio.wait_for(chat.close(), PATIENCE)
    await reader
    assert on_disk(chat)[0] == ("one", "a b", "interrupted")


async def test_a_session_open_elsewhere_can_only_be_read(start: Start) -> None:
    one = await start("first", "third")
    await all_of(one.send("one"))
    two = await start("x")
    await two.open(one.conversation.id)
    assert two.read_only
    with pytest.raises(SessionBusyError):
        two.send("two")
    with pytest.raises(SessionBusyError):
        await two.delete(one.conversation.id)
    title = one.conversation.title
    with pytest.raises(SessionBusyError):
        await two.rename(one.conversation.id, "Stale")
    two.keep_draft(Draft("mine"))
    await all_of(one.send("more"))
    await two.saver.flush()
    assert [s.title for s in one.store.sessions()] == [title]
    assert [turn.prompt for turn in one.store.load(one.conversation.id).turns] == ["one", "more"]
    assert not one.store.draft(one.conversation.id)
    await two.open(one.conversation.id)
    assert len(two.conversation.turns) == 2
    await one.new()
    await two.open(one.store.last_session() or "")
    assert not two.read_only
    await all_of(two.send("two"))


async def test_a_reply_being_written_elsewhere_is_not_marked(start: Start) -> None:
    one = await start(Reply("a b c d", token_seconds=0.05))
    two = await start("x")
    async for update in one.send("one"):
        if isinstance(update, Text) and not two.conversation.turns:
            await two.open(one.conversation.id)
            assert two.conversation.turns[0].state == "streaming"
            await two.saver.flush()
    assert on_disk(one) == [("one", "a b c d", "complete")]


async def test_opening_what_does_not_exist_changes_nothing(start: Start) -> None:
    chat = await start("first")
    await all_of(chat.send("one"))
    before = chat.conversation
    with pytest.raises(UnknownSessionError):
        await chat.open("f" * 32)
    assert chat.conversation is before and not chat.read_only
    assert chat.store.locks.is_free("f" * 32)


async def test_renaming_holds(start: Start) -> None:
    chat = await start("first", "second")
    await all_of(chat.send("one"))
    session = chat.conversation.id
    await chat.rename(session, "  A new\nname \x1b[31m")
    await all_of(chat.send("two"))
    await chat.rename(session, " ")
    await chat.new()
    assert [s.title for s in chat.store.sessions()] == ["A new name"]
    await chat.rename(session, "Another")
    assert [s.title for s in chat.store.sessions()] == ["Another"]


async def test_deleting_and_bringing_back(start: Start) -> None:
    chat = await start("first")
    await all_of(chat.send("one"))
    session = chat.conversation.id
    await chat.delete(session)
    assert chat.conversation.id != session and chat.store.sessions() == []
    await chat.undo_delete(session)
    assert (await chat.open(session)).turns[0].reply == "first"


async def test_a_deleted_session_is_gone_after_a_while(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktchat.session.open_session.UNDO_SECONDS", -0.98)
    monkeypatch.setattr(stores.Store.purge, "__defaults__", (0.0,))
    chat = await start("first")
    await all_of(chat.send("one"))
    session = chat.conversation.id
    await chat.delete(session)
    await soon(lambda: not chat.store.database.query("SELECT id FROM sessions", ()))
    await chat.undo_delete(session)
    assert chat.store.sessions() == []


# Drafts.


async def test_an_unsent_text_is_there_after_a_restart(start: Start) -> None:
    chat = await start("first")
    await all_of(chat.send("one"))
    chat.keep_draft(Draft("unsent in a session"))
    session = chat.conversation.id
    await chat.new()
    assert chat.draft.text == ""
    chat.keep_draft(Draft("unsent in a new one"))
    await chat.close()
    again = await start("x")
    await again.new()
    assert again.draft.text == "unsent in a new one"
    await again.open(session)
    assert again.draft.text == "unsent in a session"


async def test_a_sent_text_is_no_draft_any_more(start: Start) -> None:
    chat = await start("first")
    await chat.new()
    chat.keep_draft(Draft("hello"))
    await chat.saver.flush()
    assert chat.store.draft(chat.conversation.id).text == "hello"
    await all_of(chat.send("hello"))
    assert chat.store.draft(chat.conversation.id) == chat.draft == Draft()


async def test_two_programs_do_not_take_each_others_draft(start: Start) -> None:
    one = await start("x")
    await one.new()
    one.keep_draft(Draft("mine"))
    await one.saver.flush()
    two = await start("x")
    await two.new()
    assert two.draft.text == ""
    assert two.conversation.id != one.conversation.id


# A disk that refuses.


async def test_the_chat_goes_on_in_memory_and_is_written_later(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.touch()
    told: list[str] = []
    chat = ChatSession(
        FakeEngine(["first", "second"]),
        Store(place / "ktchat.db"),
        notify=lambda words, severity: told.append(severity),
    )
    async for event in chat.load(Load("/m/a.gguf")):
        assert not isinstance(event, Failed)
    await chat.new()
    updates = await all_of(chat.send("one"))
    assert isinstance(updates[-1], Finished) and told == ["error"]
    session = chat.conversation.id
    await chat.new()
    await all_of(chat.send("two"))
    kept = await chat.open(session)
    assert kept.turns[0].reply == "first"
    with pytest.raises(KtchatError):
        await chat.delete("f" * 32)
    place.unlink()
    await chat.rename(session, "Renamed")
    assert told == ["error", "information"]
    assert {s.title for s in chat.store.sessions()} == {"Renamed", "two"}
    await chat.close()


async def test_the_model_is_loaded_through_the_chat(start: Start) -> None:
    chat = await start("x", model="Qwen\x1b[31m3")
    assert chat.loaded is not None
    events = [event async for event in chat.load(Load("/m/B\x1b]0;x\x07ad.gguf"))]
    assert [type(e) for e in events] == [Progress, Progress, Loaded]
    assert isinstance(events[-1], Loaded) and events[-1].name == "Bad"
    assert Message("user", "a")


# Thinking.


async def test_the_choice_of_thinking_is_the_session_s(start: Start) -> None:
    chat = await start("a", "b")
    chat.engine.think = ("off", "on")  # type: ignore[attr-defined]
    async for _ in chat.load(Load("/m/Fake.gguf")):
        pass
    assert chat.think == "on"
    await all_of(chat.send("hi"))
    chat.choose_thinking("off")
    assert chat.think == "off"
    await all_of(chat.send("again"))
    assert [r.think for r in chat.engine.requests] == [None, "off"]  # type: ignore[attr-defined]
    first = chat.conversation.id
    await chat.new()
    assert chat.think == "on"
    again = await start("c")
    await chat.close()
    await again.open(first)
    assert again.conversation.think == "off"
    assert again.think is None  # this model offers nothing, and is asked for nothing
    await all_of(again.send("more"))
    assert again.engine.requests[-1].think is None  # type: ignore[attr-defined]
    with pytest.raises(ThinkingError, match="offers no choice"):
        again.choose_thinking("on")
    again.choose_thinking(None)


async def test_text_that_proves_to_be_thinking_is_kept_as_that(start: Start) -> None:
    chat = await start(Reply("Hello", unopened="I plan this"), "ok")
    updates = await all_of(chat.send("hi"))
    assert sum(isinstance(update, WasThinking) for update in updates) == 1
    turn = chat.conversation.turns[0]
    assert (turn.thinking, turn.reply) == ("I plan this", "Hello")
    assert on_disk(chat) == [("hi", "Hello", "complete")]
    await all_of(chat.send("next"))
    assert asked(chat) == ["user: hi", "assistant: Hello", "user: next"]


async def test_an_answer_at_once_is_kept_like_any_other(start: Start) -> None:
    chat = await start(Reply("the answer", thinking="deep " * 500, token_seconds=0.005))
    async for update in chat.send("why"):
        if isinstance(update, Thinking):
            chat.answer_now()
    turn = chat.conversation.turns[0]
    assert (turn.state, turn.reply) == ("complete", "the answer")
    assert 0 < turn.thinking.count("deep") < 500
    assert on_disk(chat) == [("why", "the answer", "complete")]
    chat.answer_now()  # nothing goes on: nothing happens


async def test_the_model_s_own_sampling_holds_unless_the_person_says_otherwise(
    start: Start,
) -> None:
    chat = await start("a")
    chat.engine.own_sampling = PartialSampling(temperature=0.6, top_k=20)  # type: ignore[attr-defined]
    async for _ in chat.load(Load("/m/Fake.gguf")):
        pass
    chat.layers_of = lambda path: Layers(everywhere={"top_k": 5, "top_p": 0.5})
    await all_of(chat.send("hi"))
    sampling = chat.conversation.turns[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.6, 20, 0.5)
