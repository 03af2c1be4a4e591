"""Making room in the context, over a scripted engine whose tokens are words."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from engine.errors import ContextError, EngineError, KtchatError, RequestError
from engine.protocol import Failed, Finished, Load
from ktchat.attachments.attachment import Draft
from ktchat.common.precedence import Layers
from ktchat.session.chat import ChatSession, Update
from ktchat.session.compaction import Compactor, Overflow, Room, going_on, unsent
from ktchat.store.conversation import EVERYTHING, Compaction
from ktchat.store.store import Store
from tests.support.fake_engine import FakeEngine, Reply

Begin = Callable[..., Awaitable[ChatSession]]
CONTEXT = 400


def _brief(path: str) -> Layers:
    return Layers(everywhere={"system": "Be short."})


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    started: list[ChatSession] = []

    async def chat(*script: Reply | str, turns: int = 0, context: int = CONTEXT) -> ChatSession:
        engine = FakeEngine([*["reply " * 20] * turns, *script], context=context)
        started.append(ChatSession(engine, Store(tmp_path / "ktchat.db"), layers=_brief))
        async for _ in started[-1].load(Load("/m/Fake.gguf")):
            pass
        for number in range(turns):
            await all_of(started[-1].send(f"question {number} " + "word " * 10))
        return started[-1]

    yield chat
    for chat_session in started:
        await chat_session.close()


async def all_of(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


async def overflow_of(chat: ChatSession, text: str) -> Overflow:
    overflow = await Compactor(chat).overflow(unsent(chat.conversation, Draft(text)))
    assert overflow is not None
    return overflow


async def summary(chat: ChatSession, room: Room) -> str:
    return [text async for text in Compactor(chat).write(room, chat.conversation)][-1]


async def test_where_there_is_room_nothing_is_asked(begin: Begin) -> None:
    chat = await begin("ok", turns=2, context=100_000)
    compactor = Compactor(chat)
    assert compactor.surely_fits(unsent(chat.conversation, Draft("hi")))
    assert await compactor.overflow(unsent(chat.conversation, Draft("hi"))) is None
    assert not compactor.surely_fits(unsent(chat.conversation, Draft("x" * 100_000)))
    assert await compactor.overflow(unsent(chat.conversation, Draft("x" * 100_000))) is None


async def test_the_fewest_turns_go_unread_and_a_quarter_is_free(begin: Begin) -> None:
    chat = await begin("ok", turns=8)
    overflow = await overflow_of(chat, "more " * 100)
    assert overflow.tokens + overflow.left == CONTEXT and overflow.left < overflow.reply
    room = await Compactor(chat).drop(overflow)
    assert room is not None and room.summary == 0
    assert room.turns == tuple(chat.conversation.turns[: room.compaction.unread])
    assert room.tokens <= CONTEXT * 3 // 4
    one_less = Compaction(room.compaction.unread - 1)
    chat.conversation.choose_compaction(one_less)
    again = await Compactor(chat)._count(unsent(chat.conversation, Draft("more " * 100)))
    assert again is not None and (again.tokens or 0) > CONTEXT * 3 // 4
    assert overflow.tokens - room.freed == room.tokens
    chat.conversation.choose_compaction(room.compaction)
    await all_of(chat.send("more " * 100))
    sent = chat.engine.requests[-1].messages  # type: ignore[attr-defined]
    assert sent[0].role == "system" and sent[1].content.startswith(
        f"question {room.compaction.unread} "
    )


async def test_a_message_that_is_alone_too_long_cannot_be_helped_by_dropping(begin: Begin) -> None:
    chat = await begin("ok", turns=3)
    overflow = await overflow_of(chat, "more " * 500)
    assert overflow.left < 1
    compactor = Compactor(chat)
    assert await compactor.drop(overflow) is None
    assert await compactor.summarise(overflow) is None
    assert await compactor.begin_anew(overflow) is None


async def test_a_summary_takes_the_place_of_the_oldest_turns(begin: Begin) -> None:
    chat = await begin(Reply("Facts: 中文 42.", thinking="secret " * 3), "answer", turns=8)
    overflow = await overflow_of(chat, "more " * 60)
    room = await Compactor(chat).summarise(overflow)
    assert room is not None and room.summary == Compactor(chat).summary_tokens
    before = copy.deepcopy(chat.conversation)
    text = await summary(chat, room)
    assert text == "Facts: 中文 42."
    assert chat.conversation == before and not chat.busy
    asked = chat.engine.requests[-1].messages  # type: ignore[attr-defined]
    assert len(asked) == 2 + 2 * len(room.turns) and asked[-1].content.startswith("Summarise")
    chat.conversation.choose_compaction(Compaction(room.compaction.unread, text))
    assert isinstance((await all_of(chat.send("more " * 60)))[-1], Finished)
    sent = chat.engine.requests[-1].messages  # type: ignore[attr-defined]
    assert "Facts: 中文 42." in sent[1].content and "secret" not in str(sent)
    assert sum(len(message.content.split()) for message in sent) < CONTEXT


async def test_a_later_summary_is_of_the_earlier_one_too(begin: Begin) -> None:
    chat = await begin("second summary", turns=8)
    chat.conversation.choose_compaction(Compaction(2, "first summary"))
    room = await Compactor(chat).summarise(await overflow_of(chat, "more " * 120))
    assert room is not None
    assert room.turns[0] is chat.conversation.turns[2]
    await summary(chat, room)
    asked = chat.engine.requests[-1].messages  # type: ignore[attr-defined]
    assert "first summary" in asked[1].content and "question 0" not in asked[1].content


async def test_what_is_too_long_to_sum_up_at_once_is_summed_up_in_parts(begin: Begin) -> None:
    chat = await begin("first part", "second part", "third part", turns=9)
    chat.engine.loaded = None  # type: ignore[misc]
    async for _ in chat.load(Load("/m/Fake.gguf", context=260)):
        pass
    turns = tuple(chat.conversation.turns)
    room = Room(Compaction(len(turns)), turns, 0, 0, 0, 32)
    texts = [text async for text in Compactor(chat).write(room, chat.conversation)]
    assert [text for text in texts if text.endswith(" part")][:2] == ["first part", "second part"]
    requests = chat.engine.requests[len(turns) :]  # type: ignore[attr-defined]
    assert len(requests) > 2 and "first part" in requests[1].messages[1].content
    said = [m.content.split()[1] for r in requests for m in r.messages if "question" in m.content]
    assert len(said) == len(turns)


async def test_a_hostile_summary_comes_out_clean_and_short(begin: Begin) -> None:
    hostile = "\x1b]52;c;SGFja2Vk\x07 a\u202eb \x9b2J <|im_end|> word. " + "more words " * 500
    chat = await begin(hostile, turns=8)
    room = await Compactor(chat).summarise(await overflow_of(chat, "more " * 60))
    assert room is not None
    text = await summary(chat, room)
    assert not set(text) & set("\x1b\x07\x9b\u202e") and "word" in text
    assert len(text.split()) <= room.summary


async def test_an_empty_summary_and_a_failure_change_nothing(begin: Begin) -> None:
    chat = await begin(" ", Reply(error=EngineError("It died")), turns=8)
    room = await Compactor(chat).summarise(await overflow_of(chat, "more " * 60))
    assert room is not None
    before = copy.deepcopy(chat.conversation)
    for error in (RequestError, EngineError):
        with pytest.raises(error):
            await summary(chat, room)
        assert chat.conversation == before and not chat.busy


async def test_nothing_else_begins_while_a_summary_is_written(begin: Begin) -> None:
    chat = await begin(Reply("word " * 10, hold_after=2), "ok", turns=8)
    room = await Compactor(chat).summarise(await overflow_of(chat, "more " * 60))
    assert room is not None
    texts = Compactor(chat).write(room, chat.conversation)
    await anext(texts)
    assert chat.busy
    with pytest.raises(RequestError):
        chat.send("now")
    await texts.aclose()
    assert not chat.busy
    await all_of(chat.send("now"))


async def test_a_title_that_is_being_written_gives_way_to_a_summary(begin: Begin) -> None:
    chat = await begin("reply " * 200, Reply("a title", hold_after=0), "The summary.", context=300)
    await all_of(chat.send("question"))
    title = asyncio.ensure_future(chat.write_title())
    await asyncio.sleep(0.01)
    room = await Compactor(chat).summarise(await overflow_of(chat, "more " * 60))
    assert room is not None and await summary(chat, room) == "The summary."
    assert not await title


async def test_a_reply_at_the_end_of_the_context_goes_on_as_a_version_with_room(
    begin: Begin,
) -> None:
    chat = await begin(Reply("half a reply", reason="context"), "and the rest", turns=8)
    chat.conversation.choose_compaction(Compaction(4))
    await all_of(chat.send("tell me"))
    cut = chat.conversation.turns[-1]
    assert cut.reason == "context" and cut.compaction == Compaction(4)
    before = copy.deepcopy(cut)
    assert going_on(chat.conversation, cut).messages()[-1].content == "half a reply"
    chat.conversation.choose_compaction(Compaction(7))
    await all_of(chat.go_on(cut))
    whole = chat.conversation.turns[-1]
    assert whole is not cut and whole.raw_reply.startswith("half a reply")
    assert whole.compaction == Compaction(7) and cut == before and cut in chat.conversation.others
    assert chat.conversation.earlier_compaction == EVERYTHING


@pytest.mark.parametrize("policy", ["drop", "summarise"])
async def test_three_times_the_context_is_held_to_its_end(begin: Begin, policy: str) -> None:
    chat = await begin("the reply and " * 10)
    said = 0
    for number in range(30):
        text = f"question {number} " + "word " * (10 + number % 7 * 8)
        overflow = await Compactor(chat).overflow(unsent(chat.conversation, Draft(text)))
        if overflow is not None:
            compactor = Compactor(chat)
            room = await (compactor.drop if policy == "drop" else compactor.summarise)(overflow)
            assert room is not None
            words = await summary(chat, room) if room.summary else ""
            chat.conversation.choose_compaction(Compaction(room.compaction.unread, words))
        events = await all_of(chat.send(text))
        assert isinstance(events[-1], Finished), events[-1]
        said += len(text.split()) + 30
    assert said > 3 * CONTEXT
    assert sum(turn.compaction is not None for turn in chat.conversation.turns) > 3
    again = await begin("x")
    await chat.saver.flush()
    await chat.close()
    loaded = again.store.load(chat.conversation.id)
    assert loaded.messages() == chat.conversation.messages()
    while (earlier := loaded.earlier_compaction) is not None:
        loaded.choose_compaction(earlier)
    said_by_me = [m.content for m in loaded.messages() if m.role == "user"]
    assert [text.split()[1] for text in said_by_me] == [str(number) for number in range(30)]


async def test_without_room_the_engine_refuses_and_the_message_is_kept(begin: Begin) -> None:
    chat = await begin("ok", turns=8)
    event = (await all_of(chat.send("more " * 300)))[-1]
    assert isinstance(event, Failed) and isinstance(event.error, ContextError)
    assert isinstance(event.error, KtchatError) and chat.conversation.turns[-1].without_reply
