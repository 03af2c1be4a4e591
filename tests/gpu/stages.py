"""Stages of the GPU check: every case a process with a deadline, every result written at once.

A case that crashes, hangs or is cut short costs no other: what it told before is kept, and how it ended is
said. Knows nothing of what is checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.gpu.children import ROOT, environment, told

Entry = dict[str, Any]
"""A line of results.jsonl: its stage and case, and "told" by the process, or how it "ended" and "why"."""

KEPT = 2000
"""Characters of a failed process's last words that are kept."""
GRACE = 5.0
"""Seconds after which a process whose pipe stays open, held by one that it left behind, is not waited for."""


@dataclass(frozen=True, slots=True)
class Case:
    """One process. `tool`: what must be on the path, else the case is skipped."""

    name: str
    command: tuple[str, ...]
    seconds: float
    env: Mapping[str, str] = field(default_factory=dict)
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Cases, `beside` of them at once with a share of the cores each; together they have `seconds`."""

    name: str
    seconds: float
    cases: tuple[Case, ...]
    beside: int = 1


class Journal:
    """results.jsonl: a line for each thing as it is known, on the disk when `write` returns."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w")
        self._say = say
        self._lock = threading.Lock()
        self._begin = time.monotonic()

    def write(self, entry: Entry) -> None:
        seconds = round(time.monotonic() - self._begin, 2)
        with self._lock:
            self._file.write(json.dumps(entry | {"at": seconds}) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            if "ended" in entry:
                words = f": {entry['why']}" if entry.get("why") else ""
                self._say(f"{seconds:5.0f} s  {entry['stage']}, {entry['case']}: {entry['ended']}{words}")  # fmt: skip

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[Entry]:
    """What is in a journal, whole lines only: a run may have been stopped in the middle of one."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def run(stages: Sequence[Stage], journal: Journal, deadline: float) -> None:
    """All stages, one after another, until `deadline` of the monotonic clock."""
    for stage in stages:
        end = min(deadline, time.monotonic() + stage.seconds)
        free: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
        for share in shares(os.sched_getaffinity(0), stage.beside):
            free.put(share)
        with ThreadPoolExecutor(stage.beside) as pool:
            begun = [pool.submit(_run, stage, case, journal, end, free) for case in stage.cases]
        for done in begun:
            done.result()
        journal.write({"stage": stage.name, "case": None, "stage_ended": True})


def shares(cores: Set[int], count: int) -> list[set[int]]:
    """Cores for each of so many processes, so that none pins threads to those of another."""
    each = sorted(cores)
    parts = [each[n * len(each) // count : (n + 1) * len(each) // count] for n in range(count)]
    return [set(part or each) for part in parts]


def _run(
    stage: Stage, case: Case, journal: Journal, end: float, free: queue.SimpleQueue[set[int]]
) -> None:
    cores = free.get()
    try:
        _ended(stage, case, journal, end, cores)
    finally:
        free.put(cores)


def _ended(stage: Stage, case: Case, journal: Journal, end: float, cores: set[int]) -> None:
    about = {"stage": stage.name, "case": case.name}
    begin = time.monotonic()
    if case.tool is not None and shutil.which(case.tool) is None:
        ended, why = "skipped", f"{case.tool} is not on the path"
    elif begin >= end:
        ended, why = "skipped", "time was up"
    else:
        limit = min(end - begin, case.seconds)
        ended, why = _process(
            case, limit, cores, lambda found: journal.write(about | {"told": found})
        )
    spent = round(time.monotonic() - begin, 2)
    journal.write(about | {"ended": ended, "why": why, "seconds": spent})


def _process(
    case: Case, limit: float, cores: set[int], tell: Callable[[Any], None]
) -> tuple[str, str]:
    """How it ended, and why it did not end well."""
    try:
        child = subprocess.Popen(
            case.command,
            cwd=ROOT,
            env=environment(**case.env),
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return "failed", str(error)
    assert child.stdout is not None
    with contextlib.suppress(OSError):  # it has ended already
        os.sched_setaffinity(child.pid, cores)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    words, stopped = _listen(lines, time.monotonic() + limit, tell)
    if stopped:
        os.killpg(child.pid, signal.SIGKILL)  # its group is its own
        more, _ = _listen(lines, time.monotonic() + GRACE, tell)
        child.wait()
        return "stopped", f"after {limit:.0f} s: {_last_line(words + more)}"
    try:
        code = child.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
    if code == 0:
        return "ok", ""
    return "failed", f"ended with {code}: {words[-KEPT:].strip() or 'no words'}"


def _read(stream: TextIO, lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _listen(
    lines: queue.SimpleQueue[str | None], end: float, tell: Callable[[Any], None]
) -> tuple[str, bool]:
    """Tells cases as they come: the other words, and whether `end` came before the output's."""
    words = ""
    while True:
        try:
            line = lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return words, True
        if line is None:
            return words, False
        found = told(line)
        if found is not None:
            tell(found)
        else:
            words = (words + line)[-2 * KEPT :]


def _last_line(words: str) -> str:
    return next((line for line in reversed(words.splitlines()) if line.strip()), "no words")
