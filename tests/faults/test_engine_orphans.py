"""A parent that is killed leaves no engine behind, whatever that does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.clock import PATIENCE, until, within
from tests.support.engines import alive

pytestmark = pytest.mark.xdist_group("clock")

PARENT = """
import asyncio, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored in a run that outlives its terminal
from engine.client import Engine
from engine.protocol import Load, Text
from tests.support.engines import ask, worker

async def main(stop_reading):
    engine = Engine(worker())
    async for event in engine.load(Load("fake")):
        pass
    async for event in ask(engine, "say=abcdefghij count=0 " + sys.argv[2]):
        if isinstance(event, Text):
            print(engine._child.pid, flush=True)
            if stop_reading:
                time.sleep(600)
            break
    async for event in ask(engine, "say=abcdefghij count=0 " + sys.argv[2]):
        pass

asyncio.run(main(sys.argv[1] == "deaf"))
"""


def start(reading: str, script: str, **environment: str) -> tuple[subprocess.Popen[str], int]:
    """A parent whose engine decodes; the engine's process id."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, reading, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    return parent, pid


def assert_gone(parent: subprocess.Popen[str], pid: int) -> None:
    """Its engine ends soon after the parent."""
    parent.wait(PATIENCE)
    with within(2):
        until(lambda: not alive(pid))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_no_orphan_while_decoding(number: signal.Signals) -> None:
    parent, pid = start("reading", "delay=0.001")
    parent.send_signal(number)
    assert_gone(parent, pid)


@pytest.mark.parametrize("fault", ["hang", "freeze"])
def test_no_orphan_while_in_native_code(fault: str) -> None:
    parent, pid = start("reading", "", KTCHAT_FAULT=f"{fault}@decode")
    time.sleep(0.3)
    parent.kill()
    assert_gone(parent, pid)


def test_no_orphan_when_the_parent_had_stopped_reading() -> None:
    parent, pid = start("deaf", "")
    time.sleep(0.5)
    assert alive(pid)
    parent.kill()
    assert_gone(parent, pid)


def test_a_deaf_parent_does_not_make_the_engine_grow_without_end() -> None:
    parent, pid = start("deaf", "")
    time.sleep(1)
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmRSS")]
    parent.kill()
    assert int(line.split()[1]) < 300_000
    assert_gone(parent, pid)


def test_interrupting_the_terminal_does_not_reach_the_engine() -> None:
    parent, pid = start("reading", "delay=0.01")
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == pid
    os.killpg(parent.pid, signal.SIGINT)
    assert_gone(parent, pid)


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_an_engine_starts_when_our_standard_streams_are_closed(closed: str, tmp_path: Path) -> None:
    script = f"""
import asyncio, os, pathlib
for descriptor in map(int, "{closed}".split()):
    os.close(descriptor)
from tests.support.engines import ask, collect, scripted, text_of

async def main():
    async with scripted() as engine:
        text = text_of(await collect(ask(engine, "say=ok")))
        pathlib.Path({str(tmp_path / "said")!r}).write_text(text + engine.log)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)
    assert (tmp_path / "said").read_text() == "ok"
