"""Storms of Ctrl-C on the screen with a real engine: no process is left, the terminal is as it was.

`python -m tests.faults.test_storms 200 [FIRST_SEED]` by hand: so many storms, and a line for each that lost something.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import termios
import time
from pathlib import Path

import pytest

from tests.support.clock import PATIENCE, until
from tests.tui.terminal import MODES_ON, Terminal, modes_on, untouched_attributes

pytestmark = pytest.mark.xdist_group("clock")

ROOT = Path(__file__).resolve().parents[2]
GUIDE = str(ROOT / "ktchat" / "assets" / "ktchat-guide.gguf")
KEYBOARD_ON = re.compile(rb"\x1b\[>[0-9]+u")
PROGRAM = "from ktchat.__main__ import main; print('begun', flush=True); raise SystemExit(main())"
"""What comes before our first line is Python's own."""
MOMENTS = ("start", "load", "read", "stream", "quit")


def processes(home: str) -> list[int]:
    """Those that run with this home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"KTCHAT_HOME={home}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def storm(home: Path, moment: str, seed: int, *, keeps: bool = False) -> list[str]:
    """What one storm broke. `keeps`: the terminal keeps what is unread at a Ctrl+C of the system's, so that a reader
    who is late in a slow hour breaks nothing."""
    draw = random.Random(seed)
    terminal = Terminal("-c", PROGRAM, "-m", GUIDE, home=home)
    try:
        if keeps:
            _keep_what_is_unread(terminal)
        terminal.sees("begun")
        _come_to(terminal, moment)
        time.sleep(draw.random() * 0.1)
        if moment == "quit":
            terminal.type("\x11")
        for _ in range(draw.randint(20, 60)):
            _interrupt(terminal, draw)
            terminal.read(draw.choice((0.0, 0.001, 0.02)))
        end = time.monotonic() + PATIENCE
        while not _has_ended(terminal):
            if time.monotonic() > end:
                return ["it does not end"]
            _interrupt(terminal, draw)
            terminal.read(0.2)
        return _damage(terminal, home, moment)
    finally:
        terminal.close()


def _keep_what_is_unread(terminal: Terminal) -> None:
    attributes = termios.tcgetattr(terminal.fd)
    attributes[3] |= termios.NOFLSH
    termios.tcsetattr(terminal.fd, termios.TCSANOW, attributes)


def _come_to(terminal: Terminal, moment: str) -> None:
    if moment == "start":
        return
    if moment == "load":
        terminal.sees("Enter send")
        return
    terminal.sees("0 of 4")  # the context: the model is there
    if moment == "read":
        terminal.type("\x1b[200~" + "some words to be read " * 60 + "\x1b[201~\r")
    elif moment == "stream":
        terminal.type("What is ktchat?\r")


def _interrupt(terminal: Terminal, draw: random.Random) -> None:
    with contextlib.suppress(OSError):
        if draw.random() < 0.5:
            terminal.type("\x03")
        elif terminal.code is None:
            terminal.signal(signal.SIGINT)


def _has_ended(terminal: Terminal) -> bool:
    pid, status = os.waitpid(terminal.pid, os.WNOHANG)
    if pid:
        terminal.code = os.waitstatus_to_exitcode(status)
        _read_to_the_end(terminal)
    return bool(pid)


def _read_to_the_end(terminal: Terminal) -> None:
    """Nobody else has the terminal: its last byte is followed by an error."""
    with contextlib.suppress(OSError):
        while data := os.read(terminal.fd, 1 << 16):
            terminal.output += data


def _damage(terminal: Terminal, home: Path, moment: str) -> list[str]:
    broken = []
    if terminal.code != 130 and not (moment == "quit" and terminal.code == 0):
        broken.append(f"it ended with {terminal.code}")
    now = termios.tcgetattr(terminal.fd)
    now[3] &= ~termios.NOFLSH
    if now != untouched_attributes():
        broken.append(f"the terminal's attributes are {now[:4]}")
    if (on := modes_on(terminal.output)) != MODES_ON:
        broken.append(f"the terminal's modes are {on}")
    if terminal.output.count(b"\x1b[<u") < len(KEYBOARD_ON.findall(terminal.output)):
        broken.append("the keyboard protocol is on")
    if any(words in terminal.text for words in ("Traceback", "Error", "Exception")):
        broken.append(terminal.text[-800:])
    try:
        until(lambda: not processes(str(home)))
    except AssertionError:
        broken.append(f"processes are left: {processes(str(home))}")
    return broken


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_storm_leaves_no_process_and_the_terminal_as_it_was(tmp_path: Path, moment: str) -> None:
    assert storm(tmp_path, moment, MOMENTS.index(moment), keeps=True) == []


def main(count: int, first: int = 0) -> int:
    """So many storms from the seed `first` on, the moments in turn; whether one broke something."""
    lost = 0
    for seed in range(first, first + count):
        moment = MOMENTS[seed % len(MOMENTS)]
        with tempfile.TemporaryDirectory() as home:
            for words in storm(Path(home), moment, seed):
                lost += 1
                sys.stdout.write(f"storm {seed} while {moment}: {words}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{count} storms, {lost} losses\n")
    return int(lost > 0)


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
