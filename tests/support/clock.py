"""Time in tests: patience for what has to come, and promises that a busy machine does not break.

What waits for something has `PATIENCE`: it costs nothing where it comes. A promise to be done within some seconds
holds on an idle machine; `within` stretches it by how slow the machine is at that moment: by a piece of work that is
timed before and after, and by how long programs waited for a processor in between, where the system tells it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

PATIENCE = 120.0
"""Seconds after which it is certain that something does not come."""

IDLE_SECONDS = 0.035
"""What `_work` takes on an idle machine."""

MOST = 10.0
"""Where programs always wait for a processor, a promise is stretched by so much."""

LOOKS = 5
"""How often the work is timed after a promise was not kept; the slowest counts."""


def slowness() -> float:
    """How many times longer than on an idle machine a small fixed piece of work takes now; at least 1."""
    begin = time.perf_counter()
    _work()
    return max(1.0, (time.perf_counter() - begin) / IDLE_SECONDS)


def _work() -> None:
    """What promises are made of: computing, a program that starts, bytes that reach the disk."""
    total = 0
    for number in range(1_000_000):
        total += number & 7
    subprocess.run(["true"], check=True)
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())


def _waited(what: str) -> float:
    """Seconds since the system's start in which some program waited for a processor ("cpu") or a disk ("io")."""
    try:
        some = Path("/proc/pressure", what).read_text().split()
    except OSError:  # a system that does not tell
        return 0.0
    return int(some[4].removeprefix("total=")) / 1e6


class within:  # noqa: N801  # reads as a sentence: with within(2): ...
    """`with within(seconds):` around what promises to be done so soon.

    Where the beginning is no line of the test, `begin` says when it was, and `check` when it was over.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.took = seconds, 0.0
        self._slowness = slowness()
        self.begin()

    def begin(self) -> None:
        """It counts from now."""
        self._waited = _waited("cpu"), _waited("io")
        self._begun = time.perf_counter()

    def check(self) -> None:
        """It is done now."""
        self.took = time.perf_counter() - self._begun
        cpu, io = (
            _waited(what) - before for what, before in zip(("cpu", "io"), self._waited, strict=True)
        )
        shared = min(MOST, 1 / max(1e-9, 1 - cpu / self.took))
        _hold(self.took - io, self.seconds, max(self._slowness, shared))

    def __enter__(self) -> within:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if kind is None:
            self.check()


def assert_within(took: float, bound: float) -> None:
    """A measurement is at most `bound`, or as many times more as the machine is slow now."""
    if took <= bound:
        return
    begin, before = time.perf_counter(), _waited("cpu")
    time.sleep(0.5)
    cpu = (_waited("cpu") - before) / (time.perf_counter() - begin)
    _hold(took, bound, min(MOST, 1 / max(1e-9, 1 - cpu)))


def _hold(took: float, bound: float, before: float) -> None:
    if took <= bound:
        return
    slow = max(before, *(slowness() for _ in range(LOOKS)))
    assert took <= bound * slow, (
        f"{took:.3f} for {bound} on a machine that is {slow:.1f} times slow"
    )


@contextmanager
def computed_within(seconds: float) -> Iterator[None]:
    """Work of this process takes at most so much of its CPU time.

    No other program adds to it, but their caches do: twice the time counts as kept where the machine is busy.
    """
    begun = time.process_time()
    yield
    assert_within(time.process_time() - begun, seconds)


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


async def soon(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something holds, in an event loop."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.002)
