"""Recurrent states are those of the tokens they are brought back for, against a model whose state is the tokens read."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.runtimes.prefix_cache import PrefixCache
from engine.runtimes.snapshots import CachedSequence, Snapshots

SIZE = 4
LOGITS = np.zeros(3, np.float32)


class Model:
    """A state that is the tokens it has read, so that a wrong one is seen at once."""

    def __init__(self, slots: int, pages: int = 64) -> None:
        self.slots: list[tuple[int, ...]] = [()] * slots
        self.cache = PrefixCache(
            pages, SIZE, lambda source, target: None, Snapshots(slots, self.save, self.load)
        )

    def save(self, slot: int) -> None:
        assert 0 < slot < len(self.slots)
        self.slots[slot] = self.slots[0]

    def load(self, slot: int, position: int) -> None:
        assert len(self.slots[slot]) == position
        self.slots[0] = self.slots[slot]

    def begin(self, tokens: list[int]) -> CachedSequence:
        sequence = self.cache.begin(tokens)
        if not sequence.tokens:
            self.slots[0] = ()
        assert self.slots[0] == tuple(sequence.tokens) == tuple(tokens[: len(sequence.tokens)])
        return sequence

    def read(self, sequence: CachedSequence, tokens: list[int], keep: bool = False) -> None:
        self.cache.reserve(sequence, len(tokens))
        sequence.tokens.extend(tokens)
        self.slots[0] += tuple(tokens)
        if keep:
            self.cache.keep_state(sequence)

    def talk(self, prompt: list[int], reply: list[int], marks: tuple[int, ...] = ()) -> int:
        """A turn; how many tokens of the prompt were cached."""
        sequence = self.begin(prompt)
        cached = len(sequence.tokens)
        stops = [mark for mark in sorted(marks) if cached < mark < len(prompt)]
        for stop in stops:
            self.read(sequence, prompt[len(sequence.tokens) : stop], keep=True)
        if cached < len(prompt):
            self.read(sequence, prompt[len(sequence.tokens) :])
            self.cache.keep_state(sequence, LOGITS)
        self.read(sequence, reply)
        return cached


def test_a_conversation_goes_on_where_it_ended() -> None:
    model = Model(8)
    assert model.talk([1, 2, 3], [4, 5]) == 0
    assert model.talk([1, 2, 3, 4, 5, 6, 7], [8]) == 5


def test_a_regenerated_reply_reads_nothing() -> None:
    model = Model(8)
    model.talk([1, 2, 3], [4, 5])
    assert model.talk([1, 2, 3], [6]) == 3
    assert model.talk([1, 2, 3], [7]) == 3


def test_a_reply_that_is_written_otherwise_goes_back_to_the_last_message_end() -> None:
    model = Model(8)
    model.talk([1, 2, 3, 90, 91], [4, 5], marks=(3,))
    assert model.talk([1, 2, 3, 90, 5, 6], [8]) == 3


def test_an_edited_message_goes_back_to_the_reply_before_it() -> None:
    model = Model(8)
    model.talk([1, 2, 3], [4, 5, 6])
    model.talk([1, 2, 3, 4, 5, 6, 7, 8], [9], marks=(6, 8))
    assert model.talk([1, 2, 3, 4, 5, 6, 17, 18], [9], marks=(6, 8)) == 6


def test_another_conversation_and_back() -> None:
    model = Model(8)
    model.talk([1, 2, 3], [4, 5])
    model.talk([70, 71], [72])
    assert model.talk([1, 2, 3, 4, 5, 6], [7]) == 5
    assert model.talk([70, 71, 72, 73], [74]) == 3


def test_few_slots_keep_the_ends_of_the_present_conversation() -> None:
    model = Model(5)
    prompt = list(range(40))
    model.talk(prompt, [50], marks=tuple(range(4, 40, 4)))
    assert model.talk(prompt, [51]) == 40
    assert model.talk([*prompt[:38], 60], [61]) == 36


def test_a_model_without_room_for_states_reads_again_and_never_wrongly() -> None:
    model = Model(1)
    model.talk([1, 2, 3], [4])
    assert model.talk([1, 2, 3, 4, 5], [6]) == 4
    assert model.talk([1, 2, 9], [6]) == 0


@pytest.mark.parametrize("slots", [1, 2, 3, 6, 20])
@pytest.mark.parametrize("pages", [12, 64])
def test_no_walk_through_conversations_meets_a_wrong_state(slots: int, pages: int) -> None:
    rng = random.Random(slots * 100 + pages)
    model = Model(slots, pages)
    known: list[list[int]] = [[1, 2, 3]]
    for _ in range(600):
        base = rng.choice(known[-8:])
        prompt = [*base[: rng.randint(0, len(base))], *(rng.randrange(5) for _ in range(3))]
        prompt = prompt[: SIZE * 8]
        reply = [rng.randrange(5) for _ in range(rng.randint(0, 4))]
        marks = tuple(sorted(rng.sample(range(1, len(prompt) + 1), min(2, len(prompt)))))
        model.talk(prompt, reply, marks)
        known.append([*prompt, *reply])
