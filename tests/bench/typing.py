"""Key to paint: how long after a key its letter is on the screen, while a reply streams.

Runs the real program in a pseudo-terminal on a scripted engine (about 200 tokens a second) or, with
`--model FILE`, on a real one; types letters one at a time, at random moments, and waits until each
is written by the program. Also measures the first frame from the start of the process. The last
line on stdout is JSON: milliseconds, nearest-rank percentiles.

    python -m tests.bench.typing [--keys 200] [--model FILE] [--idle] [--size 80x24]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import math
import os
import pty
import random
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTED = "tests.bench.typing_app"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ESCAPES = re.compile(rb"\x1b\[[0-9;?:<>=$]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")


class Terminal:
    """The program in a pseudo-terminal, and what it wrote."""

    def __init__(self, command: list[str], size: tuple[int, int], home: str) -> None:
        self.started = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            os.chdir(ROOT)
            environment = {"KTCHAT_HOME": home, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.execve(command[0], command, {**os.environ, **environment})
        self.output = b""

    def read(self, seconds: float) -> bytes:
        """What arrives within `seconds`, at once when something does."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return b""
        data = os.read(self.fd, 1 << 16)
        self.output += data
        return data

    def wait_for(self, needle: bytes, seconds: float) -> float:
        """Seconds since the start when `needle` has been written."""
        end = time.perf_counter() + seconds
        while needle not in _text(self.output):
            if time.perf_counter() > end:
                raise SystemExit(f"{needle!r} did not appear: {_text(self.output)[-300:]!r}")
            self.read(0.05)
        return time.perf_counter() - self.started

    def drain(self, seconds: float) -> None:
        """Read for so long."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.read(left)

    def key_to_paint(self, letter: str, limit: float = 2.0) -> float:
        """Seconds from writing a key until the program draws it with the cursor after it.

        The prompt's row is written whole at each key; its letter is the last one before the
        cursor, which is drawn as a reversed or coloured blank.
        """
        self.output = b""
        start = time.perf_counter()
        os.write(self.fd, letter.encode())
        while time.perf_counter() - start < limit:
            if self.read(0.02) and _in_prompt(self.output, letter):
                return time.perf_counter() - start
        raise SystemExit(f"the key {letter!r} was not drawn within {limit} s")

    def close(self) -> None:
        """End the program."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def _text(output: bytes) -> bytes:
    return _ESCAPES.sub(b"", output)


def _in_prompt(output: bytes, letter: str) -> bool:
    """Whether the row of the prompt was drawn with `letter` at its end: `│ …x █ │`."""
    rows = _text(output).decode(errors="replace").split("│")
    return any(row.rstrip().endswith(f"#{letter}") for row in rows)


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """One run of the program."""
    width, _, height = arguments.size.partition("x")
    home = tempfile.mkdtemp(prefix="ktchat-typing-")
    program = ["-m", "ktchat", "-m", arguments.model] if arguments.model else ["-m", SCRIPTED]
    terminal = Terminal([sys.executable, *program], (int(width), int(height)), home)
    chance = random.Random(1)
    try:
        first_frame = terminal.wait_for(b"Enter", 10)
        terminal.wait_for(b"0 of", 120)  # the context meter: the model is there
        if not arguments.idle:
            os.write(terminal.fd, b"Tell me everything about mixtures of experts\r")
            terminal.output = b""
            terminal.wait_for(b"tok/s", 120)
        times = []
        for number in range(arguments.keys):
            if number % 30 == 0:  # begin a new prompt before it grows into the conversation
                os.write(terminal.fd, b"\x15" + b"\x7f" * 4)
                terminal.drain(0.2)
            terminal.drain(chance.uniform(0.02, 0.12))
            os.write(terminal.fd, b"#")
            terminal.drain(chance.uniform(0.05, 0.12))
            times.append(terminal.key_to_paint(chance.choice(LETTERS)) * 1000)
    finally:
        terminal.close()
        shutil.rmtree(home, ignore_errors=True)
    return {
        "first_frame_ms": round(first_frame * 1000, 1),
        "key_to_paint_ms": {
            "p50": round(percentile(times, 0.5), 1),
            "p90": round(percentile(times, 0.9), 1),
            "p99": round(percentile(times, 0.99), 1),
            "max": round(max(times), 1),
        },
        "keys": len(times),
        "streaming": not arguments.idle,
        "model": Path(arguments.model).name if arguments.model else "scripted, 200 tok/s",
        "size": arguments.size,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--model", default="", help="a GGUF file; default: the scripted engine")
    parser.add_argument("--idle", action="store_true", help="type while nothing streams")
    parser.add_argument("--size", default="80x24")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
