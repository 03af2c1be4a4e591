"""A program in a pseudo-terminal: its keys, its signals and every byte that it writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

from tests.support.clock import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
ESCAPES = re.compile(rb"\x1b\[[0-9;?:<>=$]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")

MODE = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
MODES_ON = {b"7", b"25"}
"""Modes that a terminal begins with: wrapping and the cursor."""


def untouched_attributes() -> list[object]:
    """The attributes of a terminal that nobody has changed."""
    master, slave = pty.openpty()
    try:
        return list(termios.tcgetattr(slave))
    finally:
        os.close(master)
        os.close(slave)


def modes_on(output: bytes) -> set[bytes]:
    """The modes that are on after this output."""
    on = set(MODES_ON)
    for numbers, state in MODE.findall(output):
        for number in numbers.split(b";"):
            (on.add if state == b"h" else on.discard)(number)
    return on


class Terminal:
    """`Terminal("-m", "ktchat")` runs Python with these arguments."""

    def __init__(
        self, *arguments: str, home: Path | str, size: tuple[int, int] = (80, 24), **extra: str
    ) -> None:
        self.started = time.perf_counter()
        self.code: int | None = None
        """Exit code, as a shell gives it; None while it runs."""
        self.output = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            os.chdir(ROOT)
            environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
            environment |= {"KTCHAT_HOME": str(home), **extra}
            command = [sys.executable, *arguments]
            os.execve(sys.executable, command, {**os.environ, **environment})

    # Output.

    def read(self, seconds: float) -> bytes:
        """What arrives within `seconds`, at once when something does."""
        if self.fd < 0:
            time.sleep(seconds)
            return b""
        try:
            if not select.select([self.fd], [], [], seconds)[0]:
                return b""
            data = os.read(self.fd, 1 << 16)
        except OSError:  # the other side is closed
            time.sleep(min(seconds, 0.01))
            return b""
        self.output += data
        return data

    def drain(self, seconds: float) -> None:
        """Read for so long."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.read(left)

    @property
    def text(self) -> str:
        """What was written, without escape sequences."""
        return ESCAPES.sub(b"", self.output).decode(errors="replace")

    def sees(self, words: str, seconds: float = PATIENCE) -> float:
        """Wait until `words` were written; seconds since the start of the program."""
        end = time.perf_counter() + seconds
        while words not in self.text:
            if time.perf_counter() > end:
                raise AssertionError(f"{words!r} did not appear after: {self.text[-600:]!r}")
            self.read(0.05)
        return time.perf_counter() - self.started

    # Input.

    def type(self, keys: str) -> None:
        """Write keys."""
        self.send(keys.encode())

    def send(self, data: bytes) -> None:
        """Write bytes, whatever they are."""
        os.write(self.fd, data)

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        os.kill(self.pid, number)

    # The end.

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end of the program; its exit code."""
        end = time.perf_counter() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.perf_counter() > end:
                raise AssertionError(f"the program did not end within {seconds} s")
            else:
                self.read(0.02)
        self.drain(0.05)
        return self.code

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """End the program in any case."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.fd >= 0:
            os.close(self.fd)
