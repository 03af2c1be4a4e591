"""The centre of independent values and how sure it is, without assuming how they scatter.

Hodges and Lehmann's estimate (1963) is the median of the means of all pairs, each value with itself too. Its
interval turns Wilcoxon's signed-rank test (1945) round: what it holds are the centres that the test does not
reject. The test's distribution is exact; that each value is independent and as likely above the centre as below
it by any amount is all that it assumes. A value that is far from the others counts as one, however far it is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def centre(values: Doubles, doubt: float) -> tuple[float, float, float]:
    """The centre of `values`, (n,), and the two ends of its interval.

    The centre lies beyond an end with a probability of `doubt` / 2 at most, which no ends fulfil for few
    values: the interval is then everything.
    """
    first, second = np.triu_indices(len(values))
    means = np.sort((values[first] + values[second]) / 2)
    outside = _outside(len(values), doubt / 2)
    if outside == 0:
        return float(np.median(means)), -math.inf, math.inf
    return float(np.median(means)), float(means[outside - 1]), float(means[-outside])


def _outside(count: int, doubt: float) -> int:
    """How many means of pairs may lie beyond each end: the interval begins with the last of them."""
    chances = np.zeros(count * (count + 1) // 2 + 1)
    chances[0] = (
        1.0  # of the sum of positive ranks, rank after rank: half of all signs are positive
    )
    for rank in range(1, count + 1):
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    return int(np.searchsorted(np.cumsum(chances), doubt, side="right"))
