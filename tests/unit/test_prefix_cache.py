"""Pages and prefix reuse, against a model of the cache that stores the tokens themselves."""

from __future__ import annotations

import random

import pytest

from engine.runtimes.pages import PagePool
from engine.runtimes.prefix_cache import CachedSequence, PrefixCache, common_prefix

SIZE = 4


class Contents:
    """A cache whose 'keys' are the tokens, so that every reused position can be checked."""

    def __init__(self, pages: int) -> None:
        self.slots: list[list[int | None]] = [[None] * SIZE for _ in range(pages)]
        self.cache = PrefixCache(pages, SIZE, self.copy)

    def copy(self, source: int, target: int) -> None:
        self.slots[target] = list(self.slots[source])

    def run(self, tokens: list[int]) -> tuple[CachedSequence, int]:
        sequence = self.cache.begin(tokens)
        cached = len(sequence.tokens)
        self.cache.reserve(sequence, len(tokens) - cached)
        for i in range(cached, len(tokens)):
            self.slots[sequence.pages[i // SIZE]][i % SIZE] = tokens[i]
            sequence.tokens.append(tokens[i])
        return sequence, cached

    def read(self, sequence: CachedSequence) -> list[int | None]:
        return [
            self.slots[sequence.pages[i // SIZE]][i % SIZE] for i in range(len(sequence.tokens))
        ]


def test_a_longer_conversation_goes_on_where_it_ended() -> None:
    contents = Contents(8)
    assert contents.run([1, 2, 3, 4, 5])[1] == 0
    assert contents.run([1, 2, 3, 4, 5, 6, 7])[1] == 5


def test_the_last_token_is_always_computed() -> None:
    contents = Contents(8)
    contents.run([1, 2, 3])
    assert contents.run([1, 2, 3])[1] == 2


@pytest.mark.parametrize("length", range(1, 12))
def test_a_branch_keeps_the_old_reply_usable(length: int) -> None:
    contents = Contents(16)
    old = list(range(12))
    contents.run(old)
    branch, cached = contents.run([*old[:length], 99, 98])
    assert cached == length
    assert contents.read(branch) == [*old[:length], 99, 98]
    again, cached = contents.run([*old, 50])
    assert cached == 12
    assert contents.read(again) == [*old, 50]


def test_a_full_pool_drops_the_oldest_and_still_serves() -> None:
    contents = Contents(3)
    contents.run([1] * 12)
    sequence, cached = contents.run([1] * 6 + [2] * 6)
    assert cached == 6
    assert contents.read(sequence) == [1] * 6 + [2] * 6
    assert contents.cache.free_pages == 0


def test_a_sequence_longer_than_the_pool_is_refused() -> None:
    contents = Contents(2)
    with pytest.raises(ValueError, match="longer than the cache"):
        contents.run([1] * 9)


def test_random_conversations_never_read_foreign_pages() -> None:
    random.seed(7)
    contents = Contents(6)
    history: list[list[int]] = [[]]
    for _ in range(3000):
        base = random.choice(history[-5:])
        cut = random.randint(0, len(base))
        tokens = base[:cut] + [random.randint(0, 2) for _ in range(random.randint(1, 9))]
        tokens = tokens[: 6 * SIZE]
        sequence, cached = contents.run(tokens)
        assert cached < len(tokens)
        assert contents.read(sequence) == tokens
        history.append(tokens)


def test_pages_return_to_the_pool_when_their_last_holder_goes() -> None:
    pool = PagePool(1)
    page = pool.take()
    assert page == 0
    assert pool.take() is None
    pool.share(page)
    pool.release(page)
    assert pool.free == 0
    pool.release(page)
    assert pool.free == 1


def test_common_prefix_of_nothing_is_nothing() -> None:
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == 2
