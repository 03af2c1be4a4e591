"""Sections of the GPU check as processes of their own: one that crashes or hangs spoils no other.

A child prints a line of JSON, {"case": {...}}, for each thing it has found out; whatever else it prints
is not looked at. Knows processes and deadlines; knows nothing of what is checked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KEPT = 4000
"""Characters of a failed child's last words that are shown."""

Case = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What children found out."""

    cases: list[Case]
    failed: list[str]
    """Children that ended with an error, in words."""
    cut: bool
    """Whether any was stopped because time was up."""


def environment(**more: str) -> dict[str, str]:
    """Of children: kernels are compiled, and torch does not compete with our threads."""
    own = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return own | {"OMP_NUM_THREADS": "1"} | more


def module(name: str, *arguments: object) -> list[str]:
    """The command of a module's `main`."""
    return [sys.executable, "-m", name, *map(str, arguments)]


def tell(case: Case) -> None:
    """In a child: one thing was found out."""
    sys.stdout.write(json.dumps({"case": case}) + "\n")
    sys.stdout.flush()


def collect(
    commands: Sequence[Sequence[str]], deadline: float, env: Mapping[str, str] | None = None
) -> Found:
    """Run all commands at once until they end, or until `deadline` of the monotonic clock."""
    with ThreadPoolExecutor(max(1, len(commands))) as pool:
        results = list(pool.map(lambda command: _run(command, deadline, env), commands))
    cases = [case for said, _, _ in results for case in _cases(said)]
    failed = []
    for command, (_, code, words) in zip(commands, results, strict=True):
        if code:
            failed.append(f"{' '.join(command[2:])} ended with {code}: {_last_line(words)}")
            sys.stderr.write(words[-KEPT:] + "\n")
    return Found(cases, failed, cut=any(code is None for _, code, _ in results))


def _run(
    command: Sequence[str], deadline: float, env: Mapping[str, str] | None
) -> tuple[str, int | None, str]:
    """What it said on standard output, its exit code (None: time was up), and on standard error."""
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() if env is None else env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, words = child.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # its group is its own
        out, words = child.communicate()
        return out, None, words
    return out, child.returncode, words


def _cases(said: str) -> Iterator[Case]:
    for line in said.splitlines():
        if line.startswith('{"case"'):
            try:
                yield json.loads(line)["case"]
            except ValueError:
                continue  # it was stopped in the middle of a line


def _last_line(words: str) -> str:
    return next((line for line in reversed(words.splitlines()) if line.strip()), "no words")
