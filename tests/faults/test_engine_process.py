"""The engine's child dies, hangs, or talks nonsense: the caller is told within two seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time

import pytest

from engine import client
from engine.client import Engine
from engine.errors import EngineError, MemoryShortError
from engine.process import child, exit_report
from engine.process.signs_of_life import SignsOfLife
from engine.protocol import (
    Event,
    Failed,
    Finished,
    Load,
    Loaded,
    Progress,
    Quiet,
    Text,
    Thinking,
)
from tests.support.clock import PATIENCE, assert_within, soon, within
from tests.support.engines import alive, ask, collect, scripted, text_of, worker

pytestmark = pytest.mark.xdist_group("clock")

SLOW = "x" * 640 + " say=ab count=0 delay=0.005 prefill=0.02"

PHASES = {
    "load": lambda event: isinstance(event, Progress) and event.stage == "load",
    "prefill": lambda event: isinstance(event, Progress) and event.stage == "prefill",
    "decode": lambda event: isinstance(event, Text | Thinking),
}


async def run(engine: Engine, phase: str, then: object = lambda event: None) -> list[Event]:
    """The command that reaches `phase`."""
    if phase == "load":
        return await collect(engine.load(Load("slow")), then)
    return await collect(ask(engine, SLOW), then)


@pytest.mark.parametrize(
    ("phase", "number"),
    [*((phase, signal.SIGKILL) for phase in PHASES), ("decode", signal.SIGTERM)],
)
async def test_a_child_killed_at_any_phase(phase: str, number: signal.Signals) -> None:
    async with scripted("" if phase == "load" else "fake") as engine:
        killed, promise = False, within(2)

        def kill(event: Event) -> None:
            nonlocal killed
            if PHASES[phase](event) and not killed:
                killed = True
                promise.begin()
                os.kill(engine._child.pid, number)

        events = await run(engine, phase, kill)
        promise.check()
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, EngineError)
        assert number.name in str(events[-1].error)
        assert "Try again" in str(events[-1].error)
        again = await collect(ask(engine, "say=ok"))
        assert isinstance(again[0], Progress)
        assert again[0].stage == "load"
        assert text_of(again) == "ok"
        assert isinstance(engine.loaded, Loaded)


async def test_a_child_killed_while_idle_is_not_missed() -> None:
    async with scripted() as engine:
        for _ in range(3):
            pid = engine._child.pid
            os.kill(pid, signal.SIGKILL)
            while alive(pid):
                time.sleep(0.001)  # this loop shall not hear of it before it asks
            assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


FAULTS = {"abort": "SIGABRT", "segfault": "SIGSEGV", "exit": "status 3"}


@pytest.mark.parametrize(
    ("phase", "fault"),
    [*((phase, "segfault") for phase in PHASES), ("decode", "abort"), ("prefill", "exit")],
)
async def test_native_code_that_dies(
    phase: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if phase == "load":
        monkeypatch.setenv("KTCHAT_FAULT", f"{fault}@{phase}")
    async with scripted("") as engine:
        if phase != "load":
            monkeypatch.setenv("KTCHAT_FAULT", f"{fault}@{phase}")
            await collect(engine.load(Load("fake")))
        events = await run(engine, phase)
        assert isinstance(events[-1], Failed)
        assert FAULTS[fault] in str(events[-1].error)
        if fault != "exit":
            assert "Fatal Python error" in engine.log
        monkeypatch.delenv("KTCHAT_FAULT")
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


async def test_dying_after_a_reply_leaves_the_reply_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted("") as engine:
        monkeypatch.setenv("KTCHAT_FAULT", "abort@idle")
        await collect(engine.load(Load("fake")))
        await soon(lambda: not alive(engine._child.pid))
        monkeypatch.delenv("KTCHAT_FAULT")
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


@pytest.mark.parametrize(("fault", "error"), [("error", EngineError), ("memory", MemoryShortError)])
async def test_an_exception_fails_the_request_and_not_the_child(
    fault: str, error: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTCHAT_FAULT", f"{fault}@decode")
    async with scripted() as engine:
        pid = engine._child.pid
        for _ in range(2):
            (*_, failed) = await collect(ask(engine, "say=ok"))
            assert type(failed.error) is error
        assert engine._child.pid == pid
        if fault == "error":
            assert "ZeroDivisionError: a fault on purpose" in str(failed.error)
            assert "Traceback" in engine.log


@pytest.mark.parametrize(
    ("fault", "phase"), [("hang", "load"), ("freeze", "prefill"), ("hang", "decode")]
)
async def test_closing_ends_a_child_that_hangs(
    phase: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTCHAT_FAULT", f"{fault}@{phase}")
    engine = Engine(worker())
    if phase != "load":
        await collect(engine.load(Load("fake")))
    task = asyncio.ensure_future(run(engine, phase))
    await asyncio.sleep(0.5)
    pid = engine._child.pid
    with within(2):
        await engine.close()
    assert not alive(pid)
    assert isinstance((await task)[-1], Failed)


async def test_a_child_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CANCEL_SECONDS", 0.3)  # no test waits for two minutes
    monkeypatch.setenv("KTCHAT_FAULT", "hang@decode")
    async with scripted() as engine:
        stop = lambda event: engine.cancel() if isinstance(event, Text) else None  # noqa: E731
        (*_, failed) = await collect(ask(engine, "say=ok"), stop)
        assert "hung" in str(failed.error)
        monkeypatch.delenv("KTCHAT_FAULT")
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


@pytest.mark.parametrize("fault", ["hang", "freeze", "stopped"])
async def test_a_child_without_a_sign_of_life_is_told_of_and_ended(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault != "stopped":
        monkeypatch.setenv("KTCHAT_FAULT", f"{fault}@decode")
    async with scripted() as engine:
        seen: list[str] = []
        noticed, ended = within(4), within(1)

        def act(event: Event) -> None:
            if isinstance(event, Text) and not seen:
                seen.append("text")
                noticed.begin()
                if fault == "stopped":
                    os.kill(engine._child.pid, signal.SIGSTOP)
            if event == Quiet(True):
                noticed.check()
                ended.begin()
                engine.cancel()

        (*_, failed) = await collect(ask(engine, SLOW), act)
        ended.check()
        assert "hung" in str(failed.error) and "no sign of life" in str(failed.error)
        monkeypatch.delenv("KTCHAT_FAULT", raising=False)
        assert text_of(await collect(ask(engine, "say=ok"))) == "ok"


async def test_a_child_that_lives_again_is_told_of() -> None:
    async with scripted() as engine:
        seen = []

        def act(event: Event) -> None:
            if isinstance(event, Text) and not seen:
                seen.append("stopped")
                os.kill(engine._child.pid, signal.SIGSTOP)
            elif isinstance(event, Quiet):
                seen.append(event.quiet)
                os.kill(engine._child.pid, signal.SIGCONT)
                if not event.quiet:
                    engine.cancel()

        (*_, last) = await collect(ask(engine, SLOW), act)
        assert seen == ["stopped", True, False] and isinstance(last, Finished)


def test_signs_of_life_are_what_a_process_does_not_what_it_says() -> None:
    signs = SignsOfLife(os.getpid(), now=0.0)
    for second in range(8):
        time_taken = time.process_time() + 0.06
        while time.process_time() < time_taken:  # it works and says nothing
            pass
        signs.look(float(second), heard=0)
        assert not signs.quiet
    for second in range(8, 16):
        time_taken = time.process_time() + 0.015  # as what waits for Python's lock
        while time.process_time() < time_taken:
            pass
        signs.look(float(second), heard=0)
    assert signs.quiet
    stopped = subprocess.Popen(["sleep", "60"])
    try:
        os.kill(stopped.pid, signal.SIGSTOP)  # one that sleeps may still be starting
        os.waitpid(stopped.pid, os.WUNTRACED)
        signs = SignsOfLife(stopped.pid, now=0.0)
        quiet = []
        for second in range(8):
            signs.look(float(second), heard=second // 6)
            quiet.append(signs.quiet)
        assert quiet == [False, False, False, True, True, True, False, False]
        signs.look(100.0, heard=1)  # the computer was asleep
        assert not signs.quiet
    finally:
        stopped.kill()
        stopped.wait()


async def test_a_child_that_is_stopped_by_the_system_can_be_closed() -> None:
    async with scripted() as engine:
        pid = engine._child.pid
        os.kill(pid, signal.SIGSTOP)
        with within(2):
            await engine.close()
        assert not alive(pid)


NONSENSE = {
    "garbage": "unreadable",
    "wrong_type": "unreadable",
    "oversized": "unreadable",
    "command": "sent a command",
    "flood": "sent too much",
    "fat": "sent too much",
    "chatter": "printed too much",
    "hang_up": "closed its pipe",
}


@pytest.mark.parametrize("mode", NONSENSE)
async def test_a_child_that_talks_nonsense_is_ended(mode: str) -> None:
    engine = Engine(worker(mode))
    events = await asyncio.wait_for(collect(engine.load(Load("fake"))), PATIENCE)
    assert isinstance(events[-1], Failed)
    assert NONSENSE[mode] in str(events[-1].error)
    pid = engine._child.pid
    await soon(lambda: not alive(pid))
    await engine.close()


async def test_a_flood_leaves_the_loop_time_to_breathe() -> None:
    worst = 10.0
    for _ in range(3):  # what holds it up does so each time
        engine = Engine(worker("flood"))
        task, waits = asyncio.ensure_future(collect(engine.load(Load("fake")))), [0.0]
        while not task.done():
            started = time.perf_counter()
            await asyncio.sleep(0.01)
            waits.append(time.perf_counter() - started)
        await engine.close()
        if (worst := min(worst, max(waits))) < 0.5:
            break
    assert_within(worst, 0.5)


async def test_a_child_that_speaks_unasked_is_ended() -> None:
    async with scripted("fake", "unasked") as engine:
        await soon(lambda: engine._child.error is not None)
        assert "unasked" in str(engine._child.error)


async def test_a_child_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "START_SECONDS", 0.4)
    engine = Engine(worker("silent"))
    (failed,) = await collect(engine.load(Load("fake")))
    assert "did not start" in str(failed.error)
    await engine.close()


async def test_a_child_that_cannot_start_says_why() -> None:
    engine = Engine(("python3", "-c", "raise SystemExit('no library: \\033[31mred')"))
    (failed,) = await collect(engine.load(Load("fake")))
    assert "status 1" in str(failed.error)
    assert "no library:  [31mred" in str(failed.error)
    assert "\033" not in str(failed.error)
    await engine.close()


def test_last_words_prefer_the_line_that_tells() -> None:
    log = "loading\nggml.c:12: GGML_ASSERT(x > 0) failed\nframe 1\nframe 2\n"
    assert exit_report.last_words(log) == "ggml.c:12: GGML_ASSERT(x > 0) failed"
    log += "Fatal Python error: Aborted\n\nCurrent thread 0x1:\n  File error.py, line 1\n"
    assert exit_report.last_words(log) == "ggml.c:12: GGML_ASSERT(x > 0) failed"
    assert exit_report.last_words("a\nb\n\n") == "b"
    assert exit_report.last_words("") == ""
    assert len(exit_report.last_words("error " * 1000)) <= 240


async def test_no_reply_is_finished_after_a_kill_at_random_moments() -> None:
    async with scripted() as engine:
        for step in range(8):
            pid = engine._child.pid
            asyncio.get_running_loop().call_later(0.004 * step, os.kill, pid, signal.SIGKILL)
            with within(2):
                events = await collect(ask(engine, "say=ab count=0 delay=0.001"))
            assert isinstance(events[-1], Failed)
            events = await collect(ask(engine, "say=ok"))
            assert isinstance(events[-1], Finished)
