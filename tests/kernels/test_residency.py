"""Experts that a conversation wants get slots, those that it no longer wants lose them."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.hybrid.residency import Residency

RNG = np.random.default_rng(1)
LAYERS, EXPERTS, TOP_K = 4, 32, 4


def settle(residency: Residency, tokens: int, popular: list[int]) -> None:
    """Tokens whose experts are mostly the popular ones, moved two at a time."""
    for _ in range(tokens):
        rows = [
            RNG.choice(EXPERTS if RNG.random() < 0.1 else popular, TOP_K, replace=False)
            for _ in range(LAYERS)
        ]
        residency.token(np.array(rows, np.int32))
        residency.begin(2)
        consistent(residency)
        residency.end()
        consistent(residency)


def consistent(residency: Residency) -> None:
    """A slot has one expert and an expert one slot, and both say so."""
    for layer, slots in enumerate(residency.slot_of):
        for expert in np.nonzero(slots >= 0)[0]:
            assert residency._expert_in[layer, slots[expert]] == expert
        assert np.count_nonzero(slots >= 0) == np.count_nonzero(residency._expert_in[layer] >= 0)


def test_wanted_experts_get_slots_and_follow_a_change_of_topic() -> None:
    residency = Residency(EXPERTS, [8] * LAYERS)
    for popular in (list(range(6)), list(range(20, 26))):
        settle(residency, 250, popular)
        assert (residency.slot_of[:, popular] >= 0).all()
    residency.lookups = residency.hits = 0
    settle(residency, 100, popular)
    assert residency.hits / residency.lookups > 0.85  # a tenth of the tokens choose anyone


def test_no_slot_is_anybodys_while_it_is_filled() -> None:
    residency = Residency(EXPERTS, [2] * LAYERS)
    residency.token(np.tile(np.arange(TOP_K, dtype=np.int32), (LAYERS, 1)))
    moves = residency.begin(3)
    assert len(moves) == 3 and all(move.leaves == -1 for move in moves)
    assert (residency.slot_of == -1).all()
    assert residency.begin(3) == []  # one batch at a time
    assert residency.end() == moves
    for move in moves:
        assert residency.slot_of[move.layer, move.expert] == move.slot
    assert np.count_nonzero(residency.slot_of >= 0) == 3


def test_an_expert_that_leaves_has_left_before_its_slot_is_filled() -> None:
    residency = Residency(EXPERTS, [1])
    for expert, tokens in ((3, 5), (9, 20)):
        for _ in range(tokens):
            residency.token(np.full((1, 1), expert, np.int32))
        (move,) = residency.begin(2)
        assert residency.slot_of[0, 3] == -1
        residency.end()
    assert move.leaves == 3 and residency.slot_of[0, 9] == 0


def test_equals_do_not_drive_each_other_out() -> None:
    residency = Residency(EXPERTS, [TOP_K])
    turns = [np.arange(start, start + TOP_K, dtype=np.int32)[None] for start in (0, TOP_K)]
    moved = 0
    for token in range(100):
        residency.token(turns[token % 2])
        moved += len(residency.begin(2))
        residency.end()
    assert moved == TOP_K


def test_a_prompt_counts_and_its_end_counts_most() -> None:
    residency = Residency(EXPERTS, [1, 1])
    early, late = np.full((60, 1), 5, np.int32), np.full((60, 1), 6, np.int32)
    residency.chunk(1, np.concatenate([early, late]))
    (move,) = residency.begin(4)
    assert (move.layer, move.expert) == (1, 6)


def test_layers_have_slots_of_their_own_number() -> None:
    residency = Residency(EXPERTS, [1, 5])
    for _ in range(50):
        rows = [RNG.permutation(8)[:TOP_K] for _ in range(2)]
        residency.token(np.array(rows, np.int32))
        residency.begin(2)
        residency.end()
    assert np.count_nonzero(residency.slot_of[0] >= 0) == 1
    assert np.count_nonzero(residency.slot_of[1] >= 0) == 5


@pytest.mark.parametrize("slots", [[0], [EXPERTS], [3, EXPERTS + 1]])
def test_layers_without_a_choice_do_not_belong_here(slots: list[int]) -> None:
    with pytest.raises(ValueError, match="slots"):
        Residency(EXPERTS, slots)
