"""Times, speeds and counts as words for the screen; see also `ktchat.common.words`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from engine.common.units import duration
from ktchat.common.text import one_line
from ktchat.common.words import counted as counted


def first_token(seconds: float) -> str:
    """Time to the first token: `0.04 s`, `1.3 s`, `42 s`."""
    return f"{seconds:.2f} s" if seconds < 0.995 else duration(seconds)


def short_path(text: str, limit: int = 300) -> str:
    """Words with the home folder as `~`, safe to draw."""
    with contextlib.suppress(RuntimeError):  # no home folder
        text = text.replace(f"{Path.home()}/", "~/")
    return one_line(text, limit)


def whole_seconds(seconds: float) -> str:
    """How long something went on: `4 s`, `2 min 5 s`."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"


def clock(moment: float, now: float | None = None) -> str:
    """The time of a message: `14:02` today, else with its date."""
    then, today = time.localtime(moment), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    if then[0] == today[0]:
        return f"{then.tm_mday} {time.strftime('%b %H:%M', then)}"
    return time.strftime("%Y-%m-%d %H:%M", then)


def day(moment: float, now: float | None = None) -> str:
    """The day of a session: `14:02` today, `Mon` this week, else `12 Nov`, `2024-11-12`."""
    then, today = time.localtime(moment), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    if age(moment, now) != "older":
        return time.strftime("%a", then)
    if then[0] == today[0]:
        return f"{then.tm_mday} {time.strftime('%b', then)}"
    return time.strftime("%Y-%m-%d", then)


def age(moment: float, now: float | None = None) -> str:
    """The group of a session in the list: today, yesterday, this week, older."""
    today = time.localtime(now)
    for name, days in (("today", 0), ("yesterday", 1), ("this week", 6)):
        first_day = (today[0], today[1], today[2] - days, 0, 0, 0, 0, 0, -1)
        if moment >= time.mktime(first_day):
            return name
    return "older"
