"""Whether a process that has work to do does anything.

What it may say is no sign: the thread that speaks may live while the one that computes is stuck, and a chunk of
a very large model's prompt says nothing for a minute. Processor time and page faults are; the kernel counts them.
"""

from __future__ import annotations

from pathlib import Path

QUIET_SECONDS = 3.0
"""Without a sign for so long, it does not answer."""


class SignsOfLife:
    """Watches one process. `look(now, heard)` as often as one likes; `heard`: bytes that came from it."""

    def __init__(self, pid: int, now: float) -> None:
        self._pid = pid
        self._seen: tuple[int, ...] = ()
        self._looked_at = self._last_sign = now

    def look(self, now: float, heard: int) -> None:
        """Note what it has done since the last look."""
        seen = (heard, *_done(self._pid))
        # Who looks too late may have been stopped himself, and the process with him.
        if seen != self._seen or now - self._looked_at > QUIET_SECONDS / 2:
            self._seen, self._last_sign = seen, now
        self._looked_at = now

    @property
    def quiet(self) -> bool:
        """Whether it has not done anything for `QUIET_SECONDS`."""
        return self._looked_at - self._last_sign >= QUIET_SECONDS


def _done(pid: int) -> tuple[int, ...]:
    """Major page faults, and ticks of user and system time, of all threads; nothing when it has ended.

    Fields 12, 14 and 15 of proc_pid_stat(5), which counts the state behind the name as 3.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ()
    return int(fields[9]), int(fields[11]), int(fields[12])
