"""Numbers as people read them: bytes, speeds, tokens, times.

The same form on the screen and on the command line.
"""

from __future__ import annotations

MANY_TOKENS_A_SECOND = 1000
"""From here on a prediction is not told more exactly."""


def count(number: int) -> str:
    """A whole number with its thousands apart: `2,310`. Every number that people read is written so."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """A number of tokens in at most four characters: `512`, `3.1k`, `41k`, `1.2M`.

    Whole multiples of 1024 are shown as such, since contexts are: 32,768 is `32k`.
    """
    if number >= 1024 and number % 1024 == 0 and number < 1 << 20:
        return f"{number >> 10}k"
    if number < 1000:
        return str(number)
    value, unit = (number / 1e3, "k") if number < 999_500 else (number / 1e6, "M")
    return (f"{value:.1f}" if value < 9.95 else f"{value:.0f}").removesuffix(".0") + unit


def byte_size(number: int) -> str:
    """Bytes in decimal units: `12.0 GB`, `380 MB`, `16.2 MB`, `7 B`."""
    value, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if value >= 99.95 or unit == "B" else f"{value:.1f} {unit}"


def gb_s(speed: float) -> str:
    """A reading speed: `3,350 GB/s`, `42 GB/s`, `4.2 GB/s`."""
    return f"{speed:,.0f} GB/s" if speed >= 9.95 else f"{speed:.1f} GB/s"


def rate(tok_s: float, measured: bool) -> str:
    """`18.4 tok/s` or `2,120 tok/s` when measured, `~18 tok/s` or `> 1,000 tok/s` when predicted.

    Models that fit the processor's cache are faster than what the memory's speed foretells.
    """
    if measured:
        return f"{tok_s:.1f} tok/s" if tok_s < 99.95 else f"{count(round(tok_s))} tok/s"
    if tok_s >= MANY_TOKENS_A_SECOND:
        return f"> {count(MANY_TOKENS_A_SECOND)} tok/s"
    return f"~{tok_s:.0f} tok/s" if tok_s >= 9.95 else f"~{tok_s:.1f} tok/s"


def duration(seconds: float) -> str:
    """A time: `0.9 s`, `42 s`, `3 min 5 s`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s"
