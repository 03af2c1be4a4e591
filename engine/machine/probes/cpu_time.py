"""Processor time: what all programs took on the CPUs that this process may use, and what of it was ours.

By Linux's /proc, which counts in ticks of 10 ms. On a virtual machine `steal` is what other guests took; it
counts as taken by others.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of a line of /proc/stat: user, nice, system, irq, softirq, steal. Guests are within user and nice."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds at one moment."""

    wall: float
    all: float
    """Of all programs on our CPUs, steal included."""
    own: float
    """Of this process and all below it, those that have ended included."""

    def others_since(self, before: CpuTime) -> float:
        """Cores that other programs kept busy meanwhile."""
        taken = (self.all - before.all) - (self.own - before.own)
        return max(0.0, taken) / max(self.wall - before.wall, 1e-9)


def cpu_time(proc: Path = _PROC, cpus: Collection[int] | None = None) -> CpuTime | None:
    """What was taken until now on `cpus` (None: where this process may run); None where the system does not say."""
    tick = os.sysconf("SC_CLK_TCK")
    try:
        allowed = os.sched_getaffinity(0) if cpus is None else cpus
        busy = _busy(proc / "stat", {f"cpu{cpu}" for cpu in allowed})
        own = _own(proc, os.getpid())
    except (AttributeError, OSError, ValueError, IndexError, KeyError):
        return None
    return CpuTime(time.monotonic(), busy / tick, own / tick)


def _busy(path: Path, names: Collection[str]) -> int:
    lines = [line.split() for line in path.read_text().splitlines()]
    rows = [[int(value) for value in row[1:]] for row in lines if row and row[0] in names]
    if not rows:
        raise ValueError(f"{path} has none of {names}")
    return sum(sum(row[column] for column in _BUSY) for row in rows)


def _own(proc: Path, process: int) -> int:
    """Ticks of a process, its children that are alive, and all that ended and were waited for."""
    ticks: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # A name may hold anything, a closing parenthesis too.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks[int(folder.name)] = sum(int(value) for value in fields[11:15])
        children[int(fields[1])].append(int(folder.name))
    total, waiting = 0, [process]
    while waiting:
        number = waiting.pop()
        total += ticks[number]
        waiting += children[number]
    return total
