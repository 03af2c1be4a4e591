"""Whether a process that has work to do does anything.

What it may say is no sign: the thread that speaks may live while the one that computes is stuck, and a chunk of
a very large model's prompt says nothing for a minute. Processor time and page faults are; the kernel counts them.
A little processor time is no sign either: beside a thread that is stuck with Python's lock, each that waits for it
wakes every 5 ms, which takes about 1 % of a core.
"""

from __future__ import annotations

from pathlib import Path

QUIET_SECONDS = 3.0
"""Without a sign for so long, it does not answer."""

BUSY_TICKS = 10
"""Processor time (in hundredths of a second) within `QUIET_SECONDS` that is a sign: 3 % of a core."""


class SignsOfLife:
    """Watches one process. `look(now, heard)` as often as one likes; `heard`: bytes that came from it."""

    def __init__(self, pid: int, now: float) -> None:
        self._pid = pid
        self._seen: tuple[int, ...] = ()
        self._ticks = 0
        self._looked_at = self._last_sign = self._counted_from = now

    def look(self, now: float, heard: int) -> None:
        """Note what it has done since the last look."""
        faults, ticks = _done(self._pid)
        # Who looks too late may have been stopped himself, and the process with him.
        late = now - self._looked_at > QUIET_SECONDS / 2
        sign = (heard, faults) != self._seen or ticks - self._ticks >= BUSY_TICKS or late
        if sign or now - self._counted_from >= QUIET_SECONDS:
            self._ticks, self._counted_from = ticks, now
        if sign:
            self._seen, self._last_sign = (heard, faults), now
        self._looked_at = now

    @property
    def quiet(self) -> bool:
        """Whether it has not done anything for `QUIET_SECONDS`."""
        return self._looked_at - self._last_sign >= QUIET_SECONDS


def _done(pid: int) -> tuple[int, int]:
    """Major page faults, and ticks of user and system time, of all threads; zeros when it has ended.

    Fields 12, 14 and 15 of proc_pid_stat(5), which counts the state behind the name as 3.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[9]), int(fields[11]) + int(fields[12])
