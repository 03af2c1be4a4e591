"""How quiet it was while something was measured: the memory's speed before and after, and what others computed.

What was disturbed does not count and is measured again, not for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.machine.probes.bandwidth import read_bandwidth
from engine.machine.probes.cpu_time import cpu_time

T = TypeVar("T")

LIMIT_MOVES = 0.10
"""A round counts whose read limit moved by no more than this share."""
OTHERS_TAKE = 0.05
"""A round counts in which other programs kept no more than so much of a core busy."""
REPEATS = 2
"""A round that does not count is measured again, so many times in the mean."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Of one round."""

    limit_moved: float = 0.0
    """The larger of the read limits before and after it over the smaller, less 1."""
    others_cores: float | None = 0.0
    """Cores that other programs kept busy, on the CPUs that are ours to use; None: the system does not say."""

    @property
    def quiet(self) -> bool:
        """Whether the round counts."""
        return self.limit_moved <= LIMIT_MOVES and (self.others_cores or 0.0) <= OTHERS_TAKE

    @property
    def words(self) -> str:
        """`memory's speed moved by 23 %, other programs took 0.61 of a core`."""
        others = "?" if self.others_cores is None else f"{self.others_cores:.2f}"
        return (
            f"memory's speed moved by {100 * self.limit_moved:.0f} %, other programs took {others}"
            " of a core"
        )


def until_quiet(
    wanted: int, threads: int, measure: Callable[[int, int], T]
) -> Iterator[tuple[T, float, Disturbance]]:
    """What rounds give, until so many were quiet or each was repeated `REPEATS` times in the mean.

    `measure(number, quiet)` is a round, before which so many were quiet. With it come the read limit of `threads`
    threads, GB/s, the mean of before and after, and how disturbed it was.
    """
    quiet, before = 0, read_bandwidth(threads)
    for number in range(wanted * (1 + REPEATS)):
        began = cpu_time()
        result = measure(number, quiet)
        after, ended = read_bandwidth(threads), cpu_time()
        others = ended.others_since(began) if began and ended else None
        found = Disturbance(moved(before, after), others)
        yield result, (before + after) / 2, found
        before, quiet = after, quiet + found.quiet
        if quiet == wanted:
            return


def moved(before: float, after: float) -> float:
    """By what share a limit moved: the same for up and down."""
    return max(before, after) / min(before, after) - 1.0


def words(rounds: Sequence[Disturbance], wanted: int) -> str:
    """How disturbed the hour was, in one sentence or two."""
    quiet = sum(one.quiet for one in rounds)
    known = [one.others_cores for one in rounds if one.others_cores is not None]
    others = (
        f"other programs took up to {max(known):.2f} of a core"
        if known
        else "what other programs took is not known"
    )
    moves = f"memory's speed moved by up to {100 * max(one.limit_moved for one in rounds):.0f} %"
    if quiet == len(rounds):
        return f"A quiet hour: {moves} in a round, {others}."
    counted = "s count" if quiet > 1 else " counts"
    if not quiet:
        verdict = "None was quiet, so all of them count, and the figures say little"
    elif quiet < wanted:
        verdict = f"Only {quiet} quiet round{counted} of the {wanted} that were wanted"
    else:
        verdict = f"The {quiet} quiet ones count"
    return (
        f"A disturbed hour: in {len(rounds) - quiet} of {len(rounds)} rounds {moves} or {others}"
        f" (at most {100 * LIMIT_MOVES:.0f} % and {OTHERS_TAKE} of a core are allowed). {verdict}."
    )
