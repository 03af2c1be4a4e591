"""Signals and sudden death: the way out is short, quiet, and what came is kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from ktchat.session.chat import ChatSession
from ktchat.store.store import Store
from tests.support.cli import Program, one_clear_line
from tests.support.clock import PATIENCE, assert_within, until, within
from tests.support.fake_engine import FakeEngine

pytestmark = pytest.mark.xdist_group("clock")

LONG = " ".join(f"w{n}" for n in range(2000))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


def read(process: subprocess.Popen[bytes], size: int) -> bytes:
    assert process.stdout is not None
    data = b""
    while len(data) < size and (chunk := process.stdout.read(size - len(data))):
        data += chunk
    return data


def reopened(program: Program) -> tuple[str, str, str]:
    """Prompt, reply and state of the only turn, as the next start shows it."""

    async def work() -> tuple[str, str, str]:
        chat = ChatSession(FakeEngine(), Store(program.database))
        session = await chat.store.call(chat.store.last_session)
        assert session is not None
        conversation = await chat.open(session)
        assert not chat.read_only
        turn = conversation.turns[0]
        await chat.close()
        return turn.prompt, turn.reply, turn.state

    return asyncio.run(work())


# Sudden death.


def test_killed_at_any_moment_all_but_the_last_moment_is_there(program: Program) -> None:
    draw = random.Random(1)
    seconds_a_token = 0.004
    for _ in range(8):
        script = {"text": LONG, "token_seconds": seconds_a_token}
        process = program.start("run", "-m", "m.gguf", "remember me", script=script)
        seen = read(process, draw.randint(1, 500))
        process.kill()
        seen += read(process, 1 << 20)
        process.wait()
        with contextlib.closing(sqlite3.connect(program.database)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        prompt, reply, state = reopened(program)
        assert (prompt, state) == ("remember me", "interrupted")
        assert LONG.startswith(reply)
        lost = seen.decode().removeprefix(reply) if len(reply) < len(seen) else ""
        assert_within(len(lost.split()), 64)  # tokens, which is 250 ms


def test_killed_before_the_first_word_the_message_is_there(program: Program) -> None:
    script = {"text": "x", "prefill_seconds": 30.0, "prefill_steps": 3000}
    process = program.start("run", "-m", "m.gguf", "--json", "remember me", script=script)
    seen = b""
    while b'"prefill"' not in seen:
        seen += os.read(process.stdout.fileno(), 4096)  # type: ignore[union-attr]
    process.kill()
    process.communicate()
    assert reopened(program) == ("remember me", "", "interrupted")


def test_processes_killed_while_they_write_leave_a_sound_file(program: Program) -> None:
    script = {"text": LONG, "token_seconds": 0.001}
    for _ in range(3):
        pair = [program.start("run", "-m", "m.gguf", f"p{n}", script=script) for n in range(2)]
        for process in pair:
            read(process, 300)
        time.sleep(random.random() * 0.3)
        for process in pair:
            process.kill()
            process.communicate()
    with contextlib.closing(sqlite3.connect(program.database)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not db.execute("PRAGMA foreign_key_check").fetchall()
    assert len(program.sessions()) == 6


# Ctrl-C.


def assert_interrupted(process: subprocess.Popen[bytes], code: int = 130) -> bytes:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert b"Traceback" not in err and b"Error" not in err
    return out


def assert_kept(program: Program, seen: bytes, in_time: bool, *states: str) -> None:
    """All that was seen is on the disk; where the program's own patience was over, the most of it."""
    prompt, reply, state = reopened(program)
    said = seen.decode().rstrip("\n")
    assert prompt == "hi" and said.startswith(reply)
    assert (reply == said and state in states) or not in_time


def test_ctrl_c_while_the_reply_streams_keeps_what_came(program: Program) -> None:
    script = {"text": LONG, "token_seconds": 0.01}
    process = program.start("run", "-m", "m.gguf", "hi", script=script)
    seen = read(process, 60)
    with within(1.0) as promise:
        process.send_signal(signal.SIGINT)
        seen += assert_interrupted(process)
    assert seen.endswith(b"\n")
    assert_kept(program, seen, promise.took < 1.0, "stopped")


@pytest.mark.parametrize("moment", ["start", "load", "prefill", "reply", "input"])
def test_a_storm_of_ctrl_c_ends_quietly(program: Program, tmp_path: Path, moment: str) -> None:
    ready = tmp_path / "ready"
    script: dict[str, object] = {
        "start": {"text": LONG, "token_seconds": 0.01},
        "load": {"text": "x", "load_seconds": 120.0},
        "prefill": {"text": "x", "prefill_seconds": 120.0, "prefill_steps": 2000},
        "reply": {"text": LONG, "token_seconds": 0.01},
        "input": {"text": "x"},
    }[moment]  # type: ignore[assignment]
    stdin = subprocess.PIPE if moment == "input" else subprocess.DEVNULL
    process = program.start(
        *("run", "-m", "m.gguf", "--json", "hi"),
        script=script, stdin=stdin, env={"KTCHAT_TEST_READY": str(ready)},
    )  # fmt: skip
    until(ready.exists)
    words = {"load": b"{", "prefill": b'"prefill"', "reply": b'"text"'}.get(moment)
    seen = b""
    while words is not None and words not in seen:
        if moment == "load":
            time.sleep(0.3)
            break
        seen += os.read(process.stdout.fileno(), 4096)  # type: ignore[union-attr]
    if moment == "input":
        time.sleep(0.3)
    for _ in range(100):
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert_interrupted(process)


def test_ctrl_c_at_any_moment_of_the_start(program: Program, tmp_path: Path) -> None:
    for number in range(10):
        ready = tmp_path / f"ready{number}"
        process = program.start(
            *("run", "-m", "m.gguf", "hi"),
            script={"text": LONG, "token_seconds": 0.01},
            env={"KTCHAT_TEST_READY": str(ready)},
        )
        until(ready.exists)
        time.sleep(0.03 * number)
        process.send_signal(signal.SIGINT)
        assert_interrupted(process)


def waiting(process: subprocess.Popen[bytes]) -> int:
    """Bytes that it wrote and nobody has read."""
    assert process.stdout is not None
    count = fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def test_ctrl_c_while_nobody_reads_the_output(program: Program) -> None:
    process = program.start("run", "-m", "m.gguf", "hi", script={"text": "word ", "times": 60_000})
    until(lambda: waiting(process) >= 60_000)  # the pipe is full: the program waits in write(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    process.communicate()


def test_ctrl_c_in_a_terminal_leaves_the_line_clean(program: Program) -> None:
    script = {"text": "x", "prefill_seconds": 120.0, "prefill_steps": 200}
    command = program.command(script, "run", "-m", "m.gguf", "hi")
    terminal = (
        "import os, pty, sys, time\n"
        "pid, fd = pty.fork()\n"
        "if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n"
        "seen = b''\n"
        "while b'reading' not in seen: seen += os.read(fd, 4096)\n"
        "os.write(fd, b'\\x03')\n"
        "try:\n"
        "    while True: seen += os.read(fd, 4096)\n"
        "except OSError: pass\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), repr(seen[-12:]))\n"
    )
    done = subprocess.run(
        [command[0], "-c", terminal, *command],
        env=program.environment(), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    code, _, end = done.stdout.partition(" ")
    assert code == "130"
    assert end.rstrip().endswith("\\r\\x1b[K'")


# Being told to go.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_saves_and_ends_soon(program: Program, number: signal.Signals) -> None:
    script = {"text": LONG, "token_seconds": 0.01}
    process = program.start("run", "-m", "m.gguf", "hi", script=script)
    seen = read(process, 60)
    with within(2.0) as promise:
        process.send_signal(number)
        seen += assert_interrupted(process, 128 + number)
    assert_kept(program, seen, promise.took < 1.5, "stopped", "interrupted")


def test_a_hanging_disk_does_not_hold_up_the_way_out(program: Program) -> None:
    process = program.start(
        "run", "-m", "m.gguf", "hi", script={"text": LONG, "token_seconds": 0.01}
    )
    read(process, 10)
    blocker = sqlite3.connect(program.database, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    with within(2.5):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    blocker.execute("ROLLBACK")
    blocker.close()


# Nobody reads, or nothing can be written.


def test_a_reader_that_goes_away_ends_the_program_quietly(program: Program) -> None:
    process = program.start(
        "run", "-m", "m.gguf", "hi", script={"text": LONG, "token_seconds": 0.002}
    )
    read(process, 20)
    process.stdout.close()  # type: ignore[union-attr]
    assert process.wait(PATIENCE) == 1
    assert process.stderr is not None and process.stderr.read() == b""
    process.stderr.close()
    assert reopened(program)[2] in ("interrupted", "stopped")


@pytest.mark.parametrize(
    "arguments",
    [["run", "-m", "m.gguf", "hi"], ["--help"], ["--version"], ["sessions", "list"],
     ["run", "-m", "m.gguf", "--json", "hi"]],
    ids=" ".join,
)  # fmt: skip
def test_a_full_output_is_one_clear_line(program: Program, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = program.run(
            *arguments, script={"text": "hi"}, capture_output=False,
            stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert done.returncode == 1
    assert one_clear_line(done.stderr) and "disk is full" in done.stderr


def test_closed_streams_are_no_crash(program: Program) -> None:
    command = program.command({"text": "reply"}, "run", "-m", "m.gguf", "hi")
    for closing, code in (("<&-", 0), ("2>&-", 0), (">&-", 1), ("<&- >&- 2>&-", 1)):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {closing}', "sh", *command],
            env=program.environment(), capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
