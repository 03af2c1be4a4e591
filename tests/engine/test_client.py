"""`Engine`: what callers see of a child that behaves."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading

import pytest

from engine.client import Engine
from engine.errors import ContextError, KtchatError, ModelFileError, RequestError
from engine.process.environment import environment
from engine.protocol import (
    Failed,
    Finished,
    Load,
    Loaded,
    Message,
    Notice,
    Prefilled,
    Progress,
    Sampling,
    Text,
)
from tests.support.clock import PATIENCE, soon, within
from tests.support.engines import alive, ask, collect, descriptors, scripted, text_of, worker

pytestmark = pytest.mark.xdist_group("clock")

ENDLESS = "say=ab count=0 delay=0.001"


async def test_load_reports_progress_and_ends_with_loaded() -> None:
    engine = Engine(worker())
    events = await collect(engine.load(Load("fake-slow", context=99)))
    assert isinstance(events[0], Progress)
    assert {type(event) for event in events[:-1]} == {Progress, Notice}
    assert isinstance(events[-1], Loaded)
    assert engine.loaded == events[-1]
    assert engine.loaded.context == 99
    await engine.close()
    assert engine.loaded is None


async def test_a_reply_streams_and_finishes() -> None:
    async with scripted() as engine:
        events = await collect(ask(engine, "say=hello\\sworld count=40 delay=0.001"))
    assert text_of(events) == "hello world" * 40
    assert [type(event) for event in events[-2:]] == [Text, Finished]
    assert any(isinstance(event, Prefilled) for event in events)
    assert sum(event.tokens for event in events if isinstance(event, Text)) == 440


async def test_the_first_token_comes_at_once_and_fast_ones_in_gulps() -> None:
    async with scripted() as engine:
        events = await collect(ask(engine, "say=abc delay=0.2"))
        assert [event.tokens for event in events if isinstance(event, Text)] == [1, 1, 1]
        events = await collect(ask(engine, "say=ab count=500"))
    texts = [event for event in events if isinstance(event, Text)]
    assert sum(event.tokens for event in texts) == 1000
    assert len(texts) < 3 + events[-1].figures.decode_seconds / 0.015


async def test_sampling_and_max_tokens_reach_the_child() -> None:
    async with scripted() as engine:
        events = await collect(ask(engine, ENDLESS, sampling=Sampling(seed=7), max_tokens=9))
    assert events[-1].reason == "length"
    assert events[-1].figures.seed == 7
    assert events[-1].figures.reply_tokens == 9


async def test_errors_of_the_model_arrive_as_themselves() -> None:
    async with scripted("") as engine:
        (*_, failed) = await collect(engine.load(Load("missing")))
        assert isinstance(failed.error, ModelFileError)
        assert engine.loaded is None
        (failed,) = await collect(ask(engine, "say=ok"))
        assert isinstance(failed.error, RequestError)
        (*_, loaded) = await collect(engine.load(Load("fake", context=20)))
        assert isinstance(loaded, Loaded)
        (failed,) = await collect(ask(engine, "x" * 50))
        assert isinstance(failed.error, ContextError)
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


async def test_without_a_model_nothing_starts() -> None:
    engine = Engine(worker())
    (failed,) = await collect(ask(engine, "hello"))
    assert isinstance(failed.error, RequestError)
    engine.cancel()
    await engine.close()


async def test_cancel_stops_within_a_token() -> None:
    async with scripted() as engine:
        asked, promise = False, within(0.5)

        def stop(event: object) -> None:
            nonlocal asked
            if isinstance(event, Text) and not asked:
                asked = True
                promise.begin()
                engine.cancel()
                engine.cancel()

        events = await collect(ask(engine, "say=ab count=0 delay=0.01"), stop)
        promise.check()
        assert events[-1].reason == "cancelled"
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


async def test_cancel_while_prefilling_stops_after_a_chunk() -> None:
    async with scripted() as engine:
        promise = within(0.5)

        def stop(event: object) -> None:
            if isinstance(event, Progress) and event.done:
                promise.begin()
                engine.cancel()

        events = await collect(ask(engine, "x" * 640 + " say=ok prefill=0.1"), stop)
        promise.check()
        assert events[-1].reason == "cancelled"
        (prefilled,) = [
            event
            for event in await collect(ask(engine, "x" * 640 + " say=ok prefill=0.05"))
            if isinstance(event, Prefilled)
        ]
        assert prefilled.cached >= 64


async def test_cancel_before_the_first_event_is_not_lost() -> None:
    async with scripted() as engine:
        request = ask(engine, ENDLESS)
        first = asyncio.ensure_future(anext(request))
        await asyncio.sleep(0)
        engine.cancel()
        events = [await first, *await collect(request)]
        assert events[-1].reason == "cancelled"


async def test_cancel_while_loading_fails_the_load() -> None:
    async with scripted("") as engine:
        events = await collect(engine.load(Load("slow")), lambda event: engine.cancel())
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, RequestError)
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


async def test_a_second_request_meanwhile_is_refused() -> None:
    async with scripted() as engine:
        first = asyncio.ensure_future(collect(ask(engine, "say=ab count=50 delay=0.001")))
        await asyncio.sleep(0)
        os.kill(engine._child.pid, signal.SIGSTOP)  # the first lasts as long as it has to
        for second in (ask(engine, "say=no"), engine.load(Load("fake"))):
            (failed,) = await collect(second)
            assert isinstance(failed.error, RequestError)
            assert "busy" in str(failed.error)
        os.kill(engine._child.pid, signal.SIGCONT)
        assert text_of(await first) == "ab" * 50


async def test_leaving_the_iterator_cancels_the_request() -> None:
    async with scripted() as engine:
        for _ in range(5):
            async for event in ask(engine, ENDLESS):
                if isinstance(event, Text):
                    break
            events = await collect(ask(engine, "say=ok"))
            assert text_of(events) == "ok"
            assert events[-1].reason == "stop"


async def test_cancelling_the_reading_task_cancels_the_request() -> None:
    async with scripted() as engine:
        task = asyncio.ensure_future(collect(ask(engine, ENDLESS)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


async def test_leaving_a_load_early_ends_it() -> None:
    async with scripted("") as engine:
        async for _ in engine.load(Load("slow")):
            break
        events = await collect(engine.load(Load("fake")))
        assert isinstance(events[-1], Loaded)


async def test_a_reader_that_pauses_blocks_nothing_and_misses_nothing() -> None:
    async with scripted() as engine:
        seen = []
        async for event in ask(engine, "say=abcdefghij count=100"):
            seen.append(event)
            if isinstance(event, Text):
                await asyncio.wait_for(asyncio.shield(engine._child.events.ended), PATIENCE)
        assert text_of(seen) == "abcdefghij" * 100
        assert len([event for event in seen if isinstance(event, Text)]) <= 2


async def test_another_model_takes_the_place_of_the_first() -> None:
    async with scripted() as engine:
        (*_, loaded) = await collect(engine.load(Load("fake", context=64)))
        assert engine.loaded == loaded
        events = await collect(ask(engine, ENDLESS))
        assert events[-1].figures.context_size == 64


async def test_the_same_child_serves_every_request() -> None:
    async with scripted() as engine:
        pids = set()
        for _ in range(3):
            await collect(ask(engine, "say=ok"))
            pids.add(engine._child.pid)
        assert len(pids) == 1


async def test_a_hundred_requests_leak_nothing() -> None:
    async with scripted() as engine:
        await collect(ask(engine, "say=ok"))
        gc.collect()  # what other tests left would close its files on the way
        before, tasks = descriptors(), asyncio.all_tasks()
        for index in range(100):
            events = await collect(ask(engine, f"say=ok{index}"))
            assert text_of(events) == f"ok{index}"
        assert descriptors() <= before  # what other tests left may go meanwhile
        assert asyncio.all_tasks() == tasks


async def test_engines_that_come_and_go_leak_nothing() -> None:
    async with scripted():
        pass
    gc.collect()
    before, tasks, threads = descriptors(), asyncio.all_tasks(), threading.active_count()
    for _ in range(5):
        async with scripted() as engine:
            pid = engine._child.pid
        assert not alive(pid)
    assert descriptors() <= before
    assert asyncio.all_tasks() == tasks
    assert threading.active_count() <= threads


async def test_a_closed_engine_refuses() -> None:
    async with scripted() as engine:
        pass
    await engine.close()
    for events in (ask(engine, "x"), engine.load(Load("fake"))):
        (failed,) = await collect(events)
        assert "closed" in str(failed.error)


async def test_closing_during_a_reply_fails_it() -> None:
    async with scripted() as engine:
        task = asyncio.ensure_future(collect(ask(engine, ENDLESS)))
        await asyncio.sleep(0.05)
        with within(1):
            await engine.close()
        assert isinstance((await task)[-1], Failed)


async def test_closing_while_the_child_starts_leaves_no_child() -> None:
    engine = Engine(worker())
    task = asyncio.ensure_future(collect(engine.load(Load("slow"))))
    await asyncio.sleep(0)
    await engine.close()
    assert isinstance((await task)[-1], Failed)
    await engine.close()
    await soon(lambda: engine._child is None or not alive(engine._child.pid))


async def test_a_conversation_too_long_for_the_pipe_is_refused() -> None:
    async with scripted() as engine:
        (failed,) = await collect(engine.generate([Message("user", "x" * (65 << 20))]))
        assert isinstance(failed.error, RequestError)
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


async def test_a_command_that_does_not_exist_is_one_clear_error() -> None:
    engine = Engine(("/nowhere/python",))
    (failed,) = await collect(engine.load(Load("fake")))
    assert isinstance(failed.error, KtchatError)
    assert "could not be started" in str(failed.error)
    await engine.close()


def test_the_child_gets_no_secrets() -> None:
    ours = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "KTCHAT_FAULT": "x",
        "KTCHAT_TOKEN": "t",
        "HF_TOKEN": "t",
        "HUGGING_FACE_HUB_TOKEN": "t",
        "OPENAI_API_KEY": "k",
        "CUDA_VISIBLE_DEVICES": "0",
        "CUDA_PASS": "p",
        "LC_PASSPHRASE": "p",
        "KTCHAT_SERVER_KEY": "k",
        "PYTHON_KEYRING_BACKEND": "b",
        "SSH_AUTH_SOCK": "s",
    }
    kept = environment(ours)
    assert kept.keys() - {"PYTHONPATH", "OPENBLAS_NUM_THREADS", "GGML_NO_BACKTRACE"} == {
        *("PATH", "LC_ALL", "KTCHAT_FAULT", "CUDA_VISIBLE_DEVICES"),
    }


def test_asyncio_run_after_asyncio_run() -> None:
    async def once() -> str:
        async with scripted() as engine:
            return text_of(await collect(ask(engine, "say=ok")))

    assert asyncio.run(once()) == asyncio.run(once()) == "ok"
