"""Characters as people see them: an emoji of several code points, a flag or a character with its accents is one.

The clusters are Rich's, so that what is moved over is as wide as what is drawn, with the halves of flags put together.
"""

from __future__ import annotations

from rich.cells import split_graphemes

WINDOW = 64
"""Code points around a place in which its cluster is looked for; no sequence of Unicode's is as long."""

Cluster = tuple[int, int, int]
"""Where it starts and ends, and its cells."""


def clusters(text: str) -> list[Cluster]:
    """The clusters of a text, without gaps."""
    found: list[Cluster] = []
    half = False  # the last one is the first half of a flag
    for start, end, cells in split_graphemes(text)[0]:
        flag = _is_half(text[start])
        if flag and half:
            first, _, before = found[-1]
            found[-1] = first, end, before + cells
            half = False
        else:
            found.append((start, end, cells))
            half = flag and end == start + 1
    return found


def before(text: str, at: int) -> int:
    """Where the cluster starts that ends at `at`, or that `at` is within; 0 at the beginning."""
    return max((start for start, _ in _around(text, at) if start < at), default=0)


def after(text: str, at: int) -> int:
    """Where the cluster ends that starts at `at`, or that `at` is within; the length at the end."""
    return min((end for _, end in _around(text, at) if end > at), default=len(text))


def _around(text: str, at: int) -> list[tuple[int, int]]:
    low = max(0, at - WINDOW)
    while low > 0 and _is_half(text[low]) and at - low < 4 * WINDOW:
        low -= 1  # which half it is depends on where the row of flags begins
    window = text[low : at + WINDOW]
    if window.isascii():
        return [(low + at_, low + at_ + 1) for at_ in range(len(window))]
    return [(low + start, low + end) for start, end, _ in clusters(window)]


def _is_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
