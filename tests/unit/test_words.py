"""Numbers as they are shown, alone and in a line."""

from __future__ import annotations

import pytest

from engine.common import units
from engine.protocol import Figures, Progress
from ktchat.common import words


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (3100, "3.1k"), (9949, "9.9k"), (9951, "10k"),
     (9999, "10k"), (32_768, "32k"), (32_769, "33k"), (131_072, "128k"), (999_499, "999k"), (999_999, "1M"), (1_250_000, "1.2M")],
)  # fmt: skip
def test_short_counts(number: int, text: str) -> None:
    assert units.short_count(number) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (16_200_000, "16.2 MB"),
     (18_600_000_000, "18.6 GB"), (999_600, "1.0 MB"), (250_000_000, "250 MB")],
)  # fmt: skip
def test_sizes(size: int, text: str) -> None:
    assert units.byte_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (0.94, "0.9 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_progress() -> None:
    reading = Progress("prefill", 2310, 4096, 12.0)
    assert words.progress(reading) == "reading 2,310 of 4,096 tokens · 9.3 s left"
    assert words.progress(Progress("prefill", 0, 4096, 0.0)) == "reading 0 of 4,096 tokens"
    loading = Progress("load", 1_000_000_000, 4_000_000_000, 2.0)
    assert words.progress(loading) == "loading 1.0 GB of 4.0 GB · 6.0 s left"


def test_what_lookup_gave_stands_behind_the_speed() -> None:
    figures = Figures(reply_tokens=101, decode_seconds=10.0, saved_seconds=1.8)
    assert words.figures(figures).startswith("10.0 tok/s · +18 % by lookup · first")
    assert figures.one_by_one_tok_s == pytest.approx(100 / 11.8)
    assert words.lookup(Figures(decode_seconds=10.0, saved_seconds=-0.32)) == "−3 % by lookup"
    assert words.lookup(Figures(decode_seconds=10.0, saved_seconds=-0.12)) == ""
    assert words.lookup(Figures(decode_seconds=10.0, saved_seconds=0.04)) == ""
    assert words.lookup(Figures()) == ""


def test_figures() -> None:
    figures = Figures(100, 0, 213, 0, 0.5, 0.9, 11.5, 3130, 32_000, 7)
    assert words.figures(figures) == (
        "18.4 tok/s · first 0.9 s · 213 tokens · context 3.1k of 32k · seed 7"
    )
    figures = Figures(31_812, 31_800, 2, first_token_seconds=0.9, restored_tokens=31_800)
    assert words.figures(figures) == ("first 0.9 s · 31.8k from disk, 12 read · 2 tokens · seed 0")
    assert words.figures(Figures(reply_tokens=1)) == "first 0.0 s · 1 token · seed 0"
