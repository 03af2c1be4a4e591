"""Experts are fetched ahead in the order of the layers, by a thread of their own, and errors reach who waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kernels.gpu.moe.expert_feed import ExpertFeed, FeedLayer

LAYERS = [FeedLayer(range(layer, 10), 3) for layer in range(5)]
Fetched = tuple[int, tuple[int, ...]]


def fed(feed: ExpertFeed[Any], used: list[frozenset[int]]) -> list[set[int]]:
    """What every layer gets, of what it needs."""
    return [
        {expert for part in feed.parts(layer, need) for expert in part.experts} & need
        for layer, need in enumerate(used)
    ]


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("buffers", [1, 2, 4])
def test_every_layer_gets_what_it_needs(threaded: bool, buffers: int) -> None:
    used = [frozenset(range(9, layer - 1, -2)) for layer in range(4)] + [frozenset[int]()]
    held: set[int] = set()
    log: list[Fetched] = []

    def fill(layer: int, experts: tuple[int, ...], buffer: int) -> None:
        held.add(buffer)
        log.append((layer, experts))

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit if threaded else lambda job: job()
        feed: ExpertFeed[int] = ExpertFeed(LAYERS, range(buffers), fill, run)
        feed.start()
        assert fed(feed, used) == used
    assert held == set(range(buffers))
    assert [layer for layer, _ in log] == sorted(layer for layer, _ in log)
    some = [expert for layer, experts in log for expert in experts if layer == 1]
    assert len(some) == len(set(some))


def test_a_layer_that_nobody_computes_does_not_hold_up_the_next() -> None:
    feed: ExpertFeed[int] = ExpertFeed(LAYERS, range(2), lambda *job: None, lambda job: job())
    feed.start()
    (first, *_) = feed.parts(3, frozenset([5, 9]))
    assert first.layer == 3


def test_a_failed_copy_is_raised_where_it_is_waited_for() -> None:
    def fill(layer: int, experts: tuple[int, ...], buffer: int) -> None:
        if layer == 1:
            raise OSError("the disk is gone")

    with ThreadPoolExecutor(1) as pool:
        feed: ExpertFeed[int] = ExpertFeed(LAYERS, range(2), fill, pool.submit)
        feed.start()
        with pytest.raises(OSError, match="the disk is gone"):
            fed(feed, [frozenset(range(10))] * 2)
