"""Tokens counted beside everything else: as the decoder counts them, while it is at work, and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.client import Engine
from engine.protocol import Failed, Finished, Load, Message, Prefilled, Sampling, Text
from tests.support.engines import ask, collect, scripted, text_of

GUIDE = Path(__file__).resolve().parents[2] / "assets" / "ktchat-guide.gguf"


@pytest.fixture
async def guide() -> AsyncIterator[Engine]:
    engine = Engine()
    await collect(engine.load(Load(str(GUIDE), context=1024, threads=2)))
    yield engine
    await engine.close()


@pytest.mark.xdist_group("guide")
async def test_a_count_is_what_the_decoder_counts(guide: Engine) -> None:
    said = [
        Message("system", "Be short. \u4e2d\u6587"),
        Message("user", "What is a token?\n\nSay <|im_end|>."),
    ]
    counted = await guide.count(said)
    assert counted is not None and counted.cached == 0 and len(counted.each) == 2
    events = await collect(guide.generate(said, Sampling(temperature=0.0), 8))
    prefilled = next(event for event in events if isinstance(event, Prefilled))
    assert counted.tokens == prefilled.tokens > sum(counted.each) > 10
    said += [Message("assistant", text_of(events)), Message("user", "And?")]
    again = await guide.count(said)
    while again is not None and not again.cached:  # the decode thread still ends its work
        await asyncio.sleep(0.01)
        again = await guide.count(said)
    assert again is not None and again.tokens is not None
    assert prefilled.tokens <= again.cached < again.tokens


async def test_it_counts_while_a_reply_is_written() -> None:
    async with scripted() as engine:
        counts = []
        async for event in ask(engine, "say=word count=300 delay=0.002"):
            if isinstance(event, Text) and len(counts) < 3:
                counts.append(await asyncio.wait_for(engine.count([Message("user", "12345")]), 5))
        assert [
            counted and (counted.tokens, counted.each, counted.cached) for counted in counts
        ] == [(6, (5,), 0)] * 3


async def test_without_a_model_or_a_child_nothing_is_counted() -> None:
    async with scripted(path="") as engine:
        assert await engine.count([Message("user", "a")]) is None
        await collect(engine.load(Load("fake")))
        assert await engine.count([]) is None
        asked = asyncio.ensure_future(engine.count([Message("user", "a" * 1000)]))
        await asyncio.sleep(0)
        await engine.close()
        assert await asked is None or asked.result().tokens == 1001
        assert await engine.count([Message("user", "a")]) is None


async def test_a_model_that_gives_way_is_asked_no_more() -> None:
    async with scripted() as engine:
        for _ in range(20):
            asked = [
                asyncio.ensure_future(engine.count([Message("user", "a" * 500)])) for _ in range(5)
            ]
            await asyncio.sleep(0)
            await collect(engine.load(Load("fake")))
            assert all(
                count is None or count.tokens == 501 for count in await asyncio.gather(*asked)
            )


async def test_a_reply_that_repeats_itself_is_stopped_where_that_is_wished() -> None:
    async with scripted() as engine:
        for watch, reason, length in ((True, "repeats", 211), (False, "stop", 400)):
            events = await collect(ask(engine, "say=0123456789 count=40", watch=watch))
            assert isinstance(events[-1], Finished) and not isinstance(events[-1], Failed)
            assert (events[-1].reason, len(text_of(events))) == (reason, length)
