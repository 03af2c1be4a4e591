"""When each model was opened last, and how often each command was chosen. Kept beside the measurements of this machine.

What cannot be read or written is as if nothing had ever been used.
"""

from __future__ import annotations

import os
import time

MAX_KEPT = 500
_BOOK, _COMMANDS = "opened", "commands"


def note_opened(path: str, now: float | None = None) -> None:
    """Note that the model at `path` was opened. Blocks shortly."""
    from engine.common import measurements

    times = opened()
    times[os.path.realpath(path)] = time.time() if now is None else now
    latest = sorted(times.items(), key=lambda item: -item[1])[:MAX_KEPT]
    measurements.write(_BOOK, dict(latest))


def opened() -> dict[str, float]:
    """Real paths of models, and when each was opened last."""
    from engine.common import measurements

    kept = measurements.read(_BOOK)
    return {
        path: float(moment)
        for path, moment in kept.items()
        if isinstance(moment, int | float) and 0 < moment < 1e11
    }


def note_command(title: str) -> None:
    """Note that a command was chosen from the palette. Blocks shortly."""
    from engine.common import measurements

    times = commands_used()
    times[title] = times.get(title, 0) + 1
    most = sorted(times.items(), key=lambda item: -item[1])[:MAX_KEPT]
    measurements.write(_COMMANDS, dict(most))


def commands_used() -> dict[str, int]:
    """Titles of commands, and how often each was chosen."""
    from engine.common import measurements

    kept = measurements.read(_COMMANDS)
    return {
        title: times
        for title, times in kept.items()
        if isinstance(times, int) and not isinstance(times, bool) and 0 < times < 1_000_000_000
    }
