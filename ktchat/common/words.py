"""Numbers in words: the same form on the screen and on the command line."""

from __future__ import annotations

from engine.plan.report import rate
from engine.protocol import Computed, Figures, Progress


def count(number: int) -> str:
    """A whole number with its thousands apart: `2 310`."""
    return f"{number:,}".replace(",", " ")


def short_count(number: int) -> str:
    """A number of tokens in at most four characters: `512`, `3.1k`, `41k`, `1.2M`.

    Whole multiples of 1024 are shown as such, since contexts are: 32 768 is `32k`.
    """
    if number >= 1024 and number % 1024 == 0 and number < 1 << 20:
        return f"{number >> 10}k"
    if number < 1000:
        return str(number)
    value, unit = (number / 1e3, "k") if number < 999_500 else (number / 1e6, "M")
    return (f"{value:.1f}" if value < 9.95 else f"{value:.0f}").removesuffix(".0") + unit


def file_size(size: int) -> str:
    """Bytes in decimal units: `16.2 MB`."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 99.5 or unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time: `0.9 s`, `42 s`, `3 min 5 s`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s"


def speed(tokens_a_second: float) -> str:
    """A speed that was measured: `18.4 tok/s`, `2 120 tok/s`."""
    return rate(tokens_a_second, True)


def progress(event: Progress) -> str:
    """Work in progress: `reading 2 310 of 4 096 tokens · 9 s left`."""
    if event.stage == "load":
        words = f"loading {file_size(event.done)} of {file_size(event.total)}"
    else:
        words = f"reading {count(event.done)} of {count(event.total)} tokens"
    left = seconds_left(event)
    return words if left is None else f"{words} · {duration(left)} left"


def seconds_left(event: Progress) -> float | None:
    """Seconds until the work is done at its pace so far; None when that says nothing yet."""
    if event.done <= 0 or event.seconds < 0.5 or event.done >= event.total:
        return None
    return event.seconds * (event.total - event.done) / event.done


def place(device: Computed) -> str:
    """What computes: `CPU`, `GPU`, `GPU and CPU`."""
    return "GPU and CPU" if device == "hybrid" else device


def figures(turn: Figures) -> str:
    """A turn in one line: `18.4 tok/s · first 0.9 s · 213 tokens · context 3.1k of 32k · seed 7`."""
    parts = [speed(turn.decode_tok_s)] if turn.decode_tok_s else []
    parts.append(f"first {duration(turn.first_token_seconds)}")
    parts.append(f"{count(turn.reply_tokens)} token" + "s" * (turn.reply_tokens != 1))
    if turn.context_size:
        used, size = short_count(turn.context_used), short_count(turn.context_size)
        parts.append(f"context {used} of {size}")
    return " · ".join([*parts, f"seed {turn.seed}"])
