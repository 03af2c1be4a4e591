"""Key to paint: how long after a key its letter is on the screen, while a reply streams.

Runs the real program in a pseudo-terminal on a scripted engine (about 200 tokens a second) or, with
`--model FILE`, on a real one; types letters one at a time, at random moments, and waits until each
is written by the program. Also measures the first frame from the start of the process. The last
line on stdout is JSON: milliseconds, nearest-rank percentiles.

    python -m tests.bench.typing [--keys 200] [--model FILE] [--idle] [--size 80x24] [--inside]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from tests.tui.terminal import ESCAPES, Terminal

SCRIPTED = "tests.bench.typing_app"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
QUESTION = "What is a mixture of experts and which keys are there?"
KEYS_A_QUESTION = 4
CLEAR = "\x15" + "\x7f" * 4
"""Ctrl+U and backspaces: the prompt is empty again."""
F12 = "\x1b[24~"


def key_to_paint(terminal: Terminal, letter: str, limit: float = 2.0) -> float:
    """Seconds from writing a key until the program has drawn it.

    At each key the prompt's row is written whole, up to its border; what was typed ends in `#` and
    the letter (both are written at once).
    """
    terminal.output = b""
    start = time.perf_counter()
    terminal.type(f"#{letter}")
    while time.perf_counter() - start < limit:
        if terminal.read(0.02) and _drawn(terminal.output, letter):
            return time.perf_counter() - start
    raise SystemExit(f"the key {letter!r} was not drawn within {limit} s")


def _drawn(output: bytes, letter: str) -> bool:
    rows = ESCAPES.sub(b"", output).decode(errors="replace").split("│")
    return any(row.rstrip().endswith(f"#{letter}") for row in rows)


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """One run of the program."""
    width, _, height = arguments.size.partition("x")
    home = tempfile.mkdtemp(prefix="ktchat-typing-")
    program = ["ktchat", "-m", arguments.model] if arguments.model else [SCRIPTED]
    terminal = Terminal("-m", *program, home=home, size=(int(width), int(height)))
    try:
        first_frame = terminal.sees("Enter send")
        terminal.sees("0 of", 120)  # the context meter: the model is there
        if arguments.inside:
            terminal.type(F12)
            terminal.sees("Inside the model")
        times = type_letters(terminal, arguments)
    finally:
        terminal.close()
        shutil.rmtree(home, ignore_errors=True)
    return {
        "first_frame_ms": round(first_frame * 1000, 1),
        "key_to_paint_ms": {
            name: round(percentile(times, share), 1)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
        "keys": len(times),
        "streaming": not arguments.idle,
        "inside": arguments.inside,
        "model": Path(arguments.model).name if arguments.model else "scripted, 200 tok/s",
        "size": arguments.size,
        "load": round(os.getloadavg()[0], 1),
    }


def type_letters(terminal: Terminal, arguments: argparse.Namespace) -> list[float]:
    """Milliseconds of each key.

    The scripted engine talks all the time. A real model is asked again for every few keys, and they
    are typed from the moment of the Enter on: while it reads, writes, and its reply is settled.
    """
    chance = random.Random(1)
    times: list[float] = []
    if not arguments.idle and not arguments.model:
        terminal.type(CLEAR + QUESTION + "\r")
        terminal.output = b""
        terminal.sees("tok/s", 120)
    while len(times) < arguments.keys:
        number = len(times)
        if arguments.model and number % KEYS_A_QUESTION == 0:
            ask(terminal, anew=number % (10 * KEYS_A_QUESTION) == 0)
        elif number % 20 == 0:  # before the prompt grows into the conversation
            terminal.type(CLEAR)
            terminal.drain(0.2)
        terminal.drain(chance.uniform(0.0, 0.05 if arguments.model else 0.2))
        times.append(key_to_paint(terminal, chance.choice(LETTERS)) * 1000)
    return times


def ask(terminal: Terminal, anew: bool) -> None:
    """Send the question, in a new session now and then: the context is not endless."""
    terminal.drain(1.0)  # the reply before is over
    if anew:
        terminal.type("\x0e")
        terminal.drain(0.5)
    terminal.type(CLEAR + QUESTION)
    terminal.drain(0.3)
    terminal.type("\r")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--model", default="", help="a GGUF file; default: the scripted engine")
    parser.add_argument("--idle", action="store_true", help="type while nothing streams")
    parser.add_argument("--size", default="80x24")
    parser.add_argument(
        "--inside", action="store_true", help="with F12's panel open, of 94 layers of 512 experts"
    )
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
