"""A reply that goes round in circles is told from one that only looks alike."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from engine.generation.repetition import LEAST_TIMES, LEAST_TOKENS, LONGEST, RepetitionWatch


def stopped_at(tokens: Iterable[int]) -> int | None:
    """Behind how many tokens the watch ends a reply; None: it does not."""
    watch = RepetitionWatch()
    return next((number for number, token in enumerate(tokens, 1) if watch.add(token)), None)


@pytest.mark.parametrize("length", [1, 2, 7, 40, 90, LONGEST])
def test_a_circle_is_stopped_soon_after_it_may_last_no_longer(length: int) -> None:
    rng = random.Random(length)
    before = [rng.randrange(1000) for _ in range(333)]
    circle = [rng.randrange(1000, 2000) for _ in range(length)]
    allowed = max(LEAST_TOKENS, LEAST_TIMES * length)
    assert stopped_at(before + circle * 2000) == len(before) + length + allowed + 1
    assert stopped_at(before + (circle * 2000)[: length + allowed]) is None


def test_lists_whose_numbers_change_go_on() -> None:
    digits = [[int(digit) for digit in f"{number:04}"] for number in range(3000)]
    assert stopped_at(token for row in digits for token in [99, *row, 98, 97]) is None


def test_a_table_with_rows_of_its_own_goes_on() -> None:
    rng = random.Random(1)
    rows = [[50, rng.randrange(40), 51, rng.randrange(40), 51, 52] for _ in range(1000)]
    assert stopped_at(token for row in rows for token in row) is None


def test_what_came_between_begins_the_count_anew() -> None:
    assert stopped_at(([1, 2, 3] * 60 + [4]) * 3) is None
