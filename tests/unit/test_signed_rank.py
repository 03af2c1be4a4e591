"""Centres and their intervals against definitions and against chance."""

import math
from itertools import product

import numpy as np
import pytest

from engine.evaluation.signed_rank import _outside, centre


def test_the_centre_is_the_median_of_the_means_of_pairs() -> None:
    value, low, high = centre(np.array([0.0, 1.0, 5.0]), 0.25)
    assert value == np.median([0, 0.5, 2.5, 1, 3, 5])
    assert (low, high) == (0, 5)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_the_distribution_is_that_of_all_signs(count: int) -> None:
    sums = [
        sum(rank for rank, positive in enumerate(signs, 1) if positive)
        for signs in product((False, True), repeat=count)
    ]
    for doubt in (0.003, 0.03, 0.1, 0.3):
        outside = sum(
            1 for most in range(max(sums) + 1) if np.mean(np.array(sums) <= most) <= doubt
        )
        assert _outside(count, doubt) == outside


def test_few_values_tell_nothing() -> None:
    assert centre(np.arange(11.0), 0.0006)[1:] == (-math.inf, math.inf)
    assert centre(np.arange(12.0), 0.0006)[1:] == (0, 11)


def test_intervals_miss_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(2, size=(1000, 16))
    intervals = [centre(values, 0.1)[1:] for values in heavy]
    missed = np.mean([not low <= 0 <= high for low, high in intervals])
    assert 0.08 < missed < 0.12
