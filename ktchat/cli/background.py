"""Long work of a command in a thread of its own, so that Ctrl-C ends it at once.

Native calls last seconds and no signal handler runs meanwhile. The main thread waits for the work,
shows its progress on a terminal, and takes the interrupt.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from engine.common.units import duration
from ktchat.cli import output

T = TypeVar("T")

Report = Callable[[str, int, int], None]
"""Called by the work with what it does, how much of that is done, and its whole (0: unknown)."""

INTERRUPTED = 130
PATIENCE = 1.0
"""Seconds that interrupted work gets to tidy up after itself."""

INTERVAL = 0.1
"""Seconds between two drawings of the progress."""

SOON = 5.0
"""Seconds after which what is done of a stage foretells the rest."""


class _StoppedError(BaseException):
    """Ends the work at its next report; no `except Exception` takes it."""


class _Work(threading.Thread):
    """Runs a function; `stop` makes its next report end it."""

    def __init__(self, function: Callable[[Report], object]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._stopped = False
        self.ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.result: object = None
        self.error: BaseException | None = None
        self.latest = ("", 0, 0)

    def run(self) -> None:
        try:
            self.result = self._function(self._report)
        except BaseException as error:  # the thread's boundary: raised again in the main thread
            self.error = error
        self.ended.put(None)

    def stop(self) -> None:
        self._stopped = True

    def _report(self, what: str, done: int, total: int) -> None:
        if self._stopped:
            raise _StoppedError
        self.latest = (what, done, total)


def run(function: Callable[[Report], T]) -> T:
    """What `function` returns or raises. Ctrl-C ends the process with 130, whatever is running."""
    work = _Work(function)
    line = _Line()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work.start()
        while not _ended(work):
            line.draw(*work.latest)
    except KeyboardInterrupt:
        work.stop()
        line.clear()
        work.join(PATIENCE)
        sys.stdout.flush()
        os._exit(INTERRUPTED)  # native threads may still be at work and cannot be asked to end
    finally:
        signal.signal(signal.SIGINT, handler)
    line.clear()
    if work.error is not None:
        raise work.error
    return work.result  # type: ignore[return-value]  # what `function` returned


def _ended(work: _Work) -> bool:
    try:
        work.ended.get(timeout=INTERVAL)
    except queue.Empty:
        return False
    return True


class _Line:
    """One line of progress on standard error, when that is a terminal."""

    def __init__(self) -> None:
        self._shown = ""
        self._terminal = output.is_terminal(sys.stderr)
        self._what, self._since = "", 0.0

    def draw(self, what: str, done: int, total: int) -> None:
        """Show what is being done, how much of it is done, for how long, and for how long still."""
        if not self._terminal or not what:
            return
        now = time.monotonic()
        if what != self._what:
            self._what, self._since = what, now
        words = f"{what}  {100 * done // total} %" if total else what
        room = shutil.get_terminal_size().columns - 1  # a wrapped line could not be taken back
        passed = now - self._since
        left = (
            f", about {duration(passed * (total - done) / done)} left"
            if passed > SOON and done
            else ""
        )
        text = f"{words}  {passed:.0f} s{left if total else ''}"[:room]
        if text != self._shown:
            output.write(f"\r\x1b[K{text}", sys.stderr)
            self._shown = text

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            output.write("\r\x1b[K", sys.stderr)
            self._shown = ""
