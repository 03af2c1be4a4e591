"""The program in a pseudo-terminal: what it writes, how it ends, what it imports."""

from __future__ import annotations

import re
import signal
import sqlite3
import termios
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ktchat.store.store import Store
from tests.support.clock import until, within
from tests.tui.program import ATTRIBUTES
from tests.tui.terminal import MODES_ON, Terminal, modes_on, untouched_attributes

pytestmark = pytest.mark.xdist_group("clock")

Run = Callable[..., Terminal]

HARMLESS = re.compile(
    rb"\x1b\[[0-9;]*[mHJK]"  # colours, cursor, clearing
    rb"|\x1b\[\?[0-9]+(?:\$p|[hl])"  # modes and questions about them
    rb"|\x1b\[[<>=][0-9;]*u"  # the keyboard protocol
    rb"|\x1b\]22;[a-z-]*\x07"  # shape of the pointer
)
RESTORED = b"\x1b[?1049l"
"""Leaves the alternate screen."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts a scenario of `tests.tui.program`, or another module."""
    terminals: list[Terminal] = []

    def begin(*arguments: str, **extra: str) -> Terminal:
        terminals.append(Terminal("-m", *arguments, home=tmp_path, **extra))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        terminal.close()


def talking(run: Run) -> Terminal:
    """A program that is writing a long reply."""
    terminal = run("tests.tui.program", "slow")
    terminal.sees("0 of 4")
    terminal.type("go on\r")
    terminal.sees("word word word")
    return terminal


def kept(tmp_path: Path) -> tuple[str, str]:
    """State and text of the only reply on the disk."""
    store = Store(tmp_path / "ktchat.db")
    try:
        (summary,) = store.sessions()
        (turn,) = store.load(summary.id).turns
    finally:
        store.close()
    return turn.state, turn.reply


def test_no_escape_sequence_of_a_model_or_a_name_reaches_the_terminal(run: Run) -> None:
    terminal = run("tests.tui.program", "hostile")
    terminal.sees("Evbefore")
    terminal.type("hello\r")
    terminal.sees("after")
    terminal.drain(0.5)
    terminal.type("\x14")  # Ctrl+T: the thinking
    terminal.drain(0.5)
    terminal.type("\x1b[200~paste \x9d0;owned\x9c\x9b2J\x1b[201~")
    terminal.sees("paste")
    terminal.type("\r")
    terminal.sees("It failed before")
    terminal.type("\x0f")  # Ctrl+O: the models
    terminal.sees("Esc back")
    terminal.drain(0.3)
    drawn = len(terminal.output)
    terminal.type("\x1b")
    until(lambda: terminal.read(0.1) == b"" and b"Enter" in terminal.output[drawn:])
    terminal.type("\x1bOQ")  # F2: the title
    terminal.sees("Title of the session")
    terminal.drain(0.3)
    output = terminal.output
    rest = HARMLESS.sub(b"", output)
    assert b"\x1b" not in rest, rest[rest.index(b"\x1b") - 40 :][:80]
    text = rest.decode()
    assert not re.search("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_nothing_heavy_is_imported_before_the_first_frame(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report"
    run("tests.tui.program", "plain", KTCHAT_TEST_REPORT=str(report)).sees("Enter send")
    until(report.exists)
    assert report.read_text().split() == []


def test_keys_in_one_burst_keep_their_order(run: Run, tmp_path: Path) -> None:
    terminal = run("tests.tui.program", "plain")
    terminal.sees("Enter send")  # the session is not open yet, the model not loaded
    terminal.type("wrong\x15first\rsecond\nline")
    terminal.sees("the reply")
    terminal.sees("second")
    terminal.type("\x11")
    assert terminal.wait() == 0
    store = Store(tmp_path / "ktchat.db")
    (summary,) = store.sessions()
    assert [turn.prompt for turn in store.load(summary.id).turns] == ["first"]
    assert store.draft(summary.id).text == "second\nline"
    store.close()


STRANGE_INPUT = (
    b"\xe9a",  # Latin-1
    b"\x1b[97;1:3u",  # a key that is let go
    b"\x1b[1114112u",
    b"\x1b[<32;NaN;NaNM",
    b"\x1b[200~AAA\x1b\x11BBB\x1b[201~",  # quit
    b"\x1b[200~AAA\x1b]0;x\rhello\r BBB\x1b[201~",  # send
    b"\x1b[200~AAA\x1b]0;owned\x07BBB\x1b[201~",  # the editor
    b"\x1b[200~look: \x1b[48;65535;65535;0;0t end\x1b[201~",
)


def test_whatever_a_terminal_sends_the_program_goes_on_and_nothing_is_sent(
    run: Run, tmp_path: Path
) -> None:
    terminal = run("tests.tui.program", "plain", VISUAL="/no/such/editor")
    terminal.sees("Enter send")
    for number, sent in enumerate(STRANGE_INPUT):
        terminal.send(sent)
        terminal.type(f" still{number}")
        terminal.sees(f"still{number}")
    assert "was not started" not in terminal.text
    terminal.type("\x11")
    assert terminal.wait() == 0
    store = Store(tmp_path / "ktchat.db")
    try:
        assert not any(store.load(summary.id).turns for summary in store.sessions())
    finally:
        store.close()


def test_a_locked_file_of_sessions_is_told_of_at_once(run: Run, tmp_path: Path) -> None:
    Store(tmp_path / "ktchat.db").sessions()
    with closing(sqlite3.connect(tmp_path / "ktchat.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        terminal = run("tests.tui.program", "plain")
        terminal.sees("Enter send")
        with within(2):
            terminal.sees("another program holds it")
        other.execute("ROLLBACK")
    terminal.type("hi\r")
    terminal.sees("the reply")


def test_ctrl_q_restores_the_terminal_and_ends_with_code_0(run: Run) -> None:
    terminal = run("tests.tui.program", "plain")
    terminal.sees("Enter send")
    terminal.type("\x11")
    assert terminal.wait() == 0
    assert RESTORED in terminal.output


def test_the_attributes_come_back_after_the_last_byte(run: Run) -> None:
    terminal = run("tests.tui.program", "marked")
    terminal.sees("0 of 4")
    terminal.type("\x11")
    assert terminal.wait() == 0
    assert modes_on(terminal.output.rpartition(ATTRIBUTES)[0]) == MODES_ON
    assert termios.tcgetattr(terminal.fd) == untouched_attributes()


def test_ctrl_c_stops_the_reply_then_twice_quits_with_code_130(run: Run, tmp_path: Path) -> None:
    terminal = talking(run)
    terminal.type("\x03")
    terminal.sees("stopped")
    terminal.type("\x03")
    terminal.sees("press Ctrl+C again to quit")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert RESTORED in terminal.output
    assert kept(tmp_path)[0] == "stopped"


def test_a_storm_of_interrupts_ends_in_order(run: Run) -> None:
    terminal = talking(run)
    for _ in range(30):
        terminal.type("\x03")
        if terminal.read(0.01) == b"" and terminal.code is not None:
            break
    for _ in range(30):
        try:
            terminal.signal(signal.SIGINT)
        except ProcessLookupError:
            break
        terminal.read(0.01)
    assert terminal.wait() == 130
    assert RESTORED in terminal.output


def test_ctrl_c_while_the_model_loads_quits(run: Run) -> None:
    terminal = run("tests.tui.program", "loading")
    terminal.sees("loading")
    terminal.type("\x03")
    terminal.sees("press Ctrl+C again to quit")
    terminal.type("\x03")
    assert terminal.wait() == 130


AS_MAKE_DOES = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, *sys.argv[1:]])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(child.wait() and 1)
"""
"""Runs a program, and does not tell it that the terminal is gone."""


def test_a_terminal_that_is_gone_ends_a_program_that_nobody_tells(tmp_path: Path) -> None:
    arguments = ("-c", AS_MAKE_DOES, "-m", "tests.tui.program", "slow")
    terminal = Terminal(*arguments, home=tmp_path)
    try:
        terminal.sees("0 of 4")
        terminal.type("go on\r")
        terminal.sees("word word word")
        terminal.hang_up()
        assert terminal.wait() == 1
    finally:
        terminal.close()
    state, reply = kept(tmp_path)
    assert state == "interrupted" and reply.count("word") > 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_reply_and_ends_within_two_seconds(
    run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    terminal = talking(run)
    with within(2):
        terminal.signal(number)
        assert terminal.wait() == 128 + number
    assert RESTORED in terminal.output
    state, reply = kept(tmp_path)
    assert state == "interrupted"
    assert reply.count("word") > 2


def test_a_signal_to_a_program_that_hangs_leaves_the_terminal_as_it_was(run: Run) -> None:
    terminal = run("tests.tui.program", "deaf")
    terminal.sees("0 of 4")
    terminal.type("hi\r")
    until(lambda: terminal.read(0.5) == b"")  # it draws no more
    terminal.signal(signal.SIGTERM)
    assert terminal.wait() == 128 + signal.SIGTERM
    assert termios.tcgetattr(terminal.fd) == untouched_attributes()
    assert modes_on(terminal.output) == MODES_ON


def test_a_closed_terminal_saves_the_reply_and_ends_within_two_seconds(
    run: Run, tmp_path: Path
) -> None:
    terminal = talking(run)
    with within(2.5):
        terminal.hang_up()
        terminal.wait()
    assert kept(tmp_path)[0] == "interrupted"


def test_the_editor_gets_the_prompt_and_gives_it_back(run: Run, tmp_path: Path) -> None:
    editor = tmp_path / "editor.sh"
    mode = tmp_path / "mode"
    editor.write_text(f'#!/bin/sh\nstat -c %a "$1" > {mode}\necho " and edited" >> "$1"\n')
    editor.chmod(0o755)
    terminal = run("tests.tui.program", "plain", VISUAL=str(editor))
    terminal.sees("0 of 4")
    terminal.type("typed")
    terminal.sees("typed")
    terminal.type("\x07")  # Ctrl+G
    terminal.sees("and edited")
    assert mode.read_text().strip() == "600"


def test_an_editor_that_cannot_be_run_is_said_in_words(run: Run) -> None:
    terminal = run("tests.tui.program", "plain", VISUAL="/no/such/editor")
    terminal.sees("0 of 4")
    terminal.type("typed")
    terminal.sees("typed")
    terminal.type("\x07")
    terminal.sees("The editor /no/such/editor was not started")
    terminal.type(" on")
    terminal.sees("typed on")
