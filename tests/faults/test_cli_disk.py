"""Disks that are full, read-only or shared: the reply comes, and what could be saved is whole."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from ktchat.store.conversation import Conversation, Turn
from ktchat.store.store import Store
from tests.support.cli import Program, one_clear_line
from tests.support.clock import PATIENCE

REPLY = {"text": "Hello there."}
RUN = ("run", "-m", "m.gguf", "hi")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


def can_mount() -> bool:
    """Whether this user can mount a file system in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    test = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(test, capture_output=True).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")


def in_namespace(program: Program, prepare: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command after `prepare` (shell; $HOME_ is ktchat's folder) with mounts of its own."""
    shell = f'HOME_="$1"; shift; {prepare}; exec "$@"'
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-ec", shell, "sh", str(program.home), *command],
        env=program.environment(), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def is_sound(database: Path) -> bool:
    with contextlib.closing(sqlite3.connect(database)) as db:
        return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/x"])
def test_without_a_place_to_save_the_reply_comes_and_it_is_said_once(place: str) -> None:
    done = Program(Path(place)).run(*RUN, script=REPLY)
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert one_clear_line(done.stderr) and "The chat goes on in memory" in done.stderr
    done = Program(Path(place)).run("sessions", "list")
    assert done.returncode == 1 and one_clear_line(done.stderr)


@needs_mount
@pytest.mark.parametrize("size", ["4k", "16k", "40k", "64k"])
def test_a_disk_that_fills_up_while_the_reply_streams(program: Program, size: str) -> None:
    program.home.mkdir(0o700)
    text = " ".join(f"word{n}" for n in range(8000))
    done = in_namespace(
        program,
        f'mount -t tmpfs -o size={size} tmpfs "$HOME_"',
        *program.command({"text": text}, *RUN),
    )
    assert (done.returncode, done.stdout) == (0, text + "\n")
    assert one_clear_line(done.stderr) and "disk is full" in done.stderr


@needs_mount
def test_a_full_disk_leaves_what_was_saved_before(program: Program) -> None:
    program.home.mkdir(0o700)
    text = " ".join(f"word{n}" for n in range(8000))
    script = (
        f"{' '.join(_quoted(program.command(REPLY, *RUN)))};"
        f"{' '.join(_quoted(program.command({'text': text}, *RUN)))};"
        f"{' '.join(_quoted(program.command(None, 'sessions', 'list')))}"
    )
    done = in_namespace(program, 'mount -t tmpfs -o size=180k tmpfs "$HOME_"', "sh", "-c", script)
    assert done.returncode == 0 and "disk is full" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("hi")


def _quoted(command: list[str]) -> list[str]:
    return [f"'{part}'" for part in command]


def test_a_limit_on_file_sizes_is_a_full_disk(program: Program) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    text = " ".join(f"word{n}" for n in range(8000))
    done = program.run(*RUN, script={"text": text}, preexec_fn=limit)
    assert done.returncode == 0 and done.stdout == text + "\n"
    assert one_clear_line(done.stderr) and "The chat goes on in memory" in done.stderr
    assert is_sound(program.database)


@needs_mount
def test_a_read_only_disk_can_still_be_read(program: Program) -> None:
    store = Store(program.database)
    saved = Conversation(title="old", turns=[Turn("old", "reply", state="complete")])
    store.save_conversation(saved)
    store.close()
    read_only = 'mount --bind "$HOME_" "$HOME_"; mount -o remount,ro,bind "$HOME_"'
    done = in_namespace(program, read_only, *program.command(None, "sessions", "list"))
    assert done.returncode == 0 and done.stdout.strip().endswith("old")
    done = in_namespace(program, read_only, *program.command(REPLY, *RUN))
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert one_clear_line(done.stderr) and "read-only" in done.stderr
    done = in_namespace(program, read_only, *program.command(REPLY, "run", "-c", *RUN[1:]))
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    done = in_namespace(program, read_only, *program.command(None, "sessions", "rm", saved.id))
    assert done.returncode == 1 and one_clear_line(done.stderr)
    assert [session.title for session in program.sessions()] == ["old"]


def test_a_file_of_a_newer_version_is_left_alone(program: Program) -> None:
    store = Store(program.database)
    store.save_conversation(Conversation(title="old", turns=[Turn("old")]))
    store.close()
    with contextlib.closing(sqlite3.connect(program.database)) as db:
        db.execute("PRAGMA user_version = 99")
    before = program.database.read_bytes()
    done = program.run(*RUN, script=REPLY)
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert one_clear_line(done.stderr) and "newer ktchat" in done.stderr
    done = program.run("sessions", "list")
    assert done.returncode == 1 and one_clear_line(done.stderr)
    assert program.database.read_bytes() == before


def test_a_damaged_file_is_repaired_and_it_is_said(program: Program) -> None:
    program.home.mkdir(0o700)
    program.database.touch(0o600)
    program.database.write_bytes(b"nonsense" * 4000)
    done = program.run(*RUN, script=REPLY)
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert one_clear_line(done.stderr) and "damaged" in done.stderr
    assert len(program.sessions()) == 1


def test_programs_that_run_at_once_all_save(program: Program) -> None:
    script = {"text": "word " * 300, "token_seconds": 0.002}
    running = [program.start(*RUN[:-1], f"prompt {n}", script=script) for n in range(5)]
    for process in running:
        _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, b"")
    sessions = program.sessions()
    assert sorted(s.title for s in sessions) == [f"prompt {n}" for n in range(5)]
    assert all(s.turns[0].raw_reply == "word " * 300 for s in sessions)
    assert is_sound(program.database)
    assert list((program.home / "locks").iterdir()) == []
