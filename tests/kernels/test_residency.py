"""Experts that a conversation wants get slots, those that it no longer wants lose them."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.hybrid.pacing import BURST, UNMEASURED, UploadPace
from kernels.hybrid.residency import Move, Residency
from tests.support.residency import compare
from tests.support.routing import TRACES

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
        move(residency)


def move(residency: Residency, most: int = 2) -> list[Move]:
    """Moves that begin and are done."""
    begun = residency.begin([most] * len(residency.slot_of))
    consistent(residency)
    for layer, moves in begun.items():
        assert residency.end(layer) == moves
    consistent(residency)
    return [one for moves in begun.values() for one in moves]


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
    """Layers do not wait for each other."""
    residency = Residency(EXPERTS, [2] * LAYERS)
    residency.token(np.tile(np.arange(TOP_K, dtype=np.int32), (LAYERS, 1)))
    begun = residency.begin([0] * LAYERS)
    assert list(begun) == list(range(LAYERS)) and (residency.slot_of == -1).all()
    assert all(one.leaves == -1 for moves in begun.values() for one in moves)
    assert residency.begin([2] * LAYERS) == {}  # one batch of a layer at a time
    assert residency.end(1) == begun[1] and len(begun[1]) == 2
    assert (
        np.count_nonzero(residency.slot_of >= 0) == np.count_nonzero(residency.slot_of[1] >= 0) == 2
    )
    for _ in range(40):
        residency.token(np.full((LAYERS, 1), 30, np.int32))
    assert list(residency.begin([2] * LAYERS)) == [1]


def test_an_expert_that_leaves_has_left_before_its_slot_is_filled() -> None:
    residency = Residency(EXPERTS, [1])
    for expert, tokens in ((3, 5), (9, 20)):
        for _ in range(tokens):
            residency.token(np.full((1, 1), expert, np.int32))
        (move,) = residency.begin([2])[0]
        assert residency.slot_of[0, 3] == -1
        residency.end(0)
    assert move.leaves == 3 and residency.slot_of[0, 9] == 0


def test_no_more_leave_than_a_layer_is_allowed() -> None:
    residency = Residency(EXPERTS, [TOP_K] * 3)
    for first in (0, TOP_K):
        for _ in range(50):
            residency.token(np.tile(np.arange(first, first + TOP_K, dtype=np.int32), (3, 1)))
        begun = residency.begin([0, 1, 3])
        for layer in begun:
            residency.end(layer)
    assert {layer: len(moves) for layer, moves in begun.items()} == {1: 1, 2: 3}
    with pytest.raises(ValueError, match="2 allowances for 3 layers"):
        residency.begin([1, 1])


def test_equals_do_not_drive_each_other_out() -> None:
    residency = Residency(EXPERTS, [TOP_K])
    turns = [np.arange(start, start + TOP_K, dtype=np.int32)[None] for start in (0, TOP_K)]
    moved = 0
    for token in range(100):
        residency.token(turns[token % 2])
        moved += len(move(residency))
    assert moved == TOP_K


def test_a_prompts_end_counts_most() -> None:
    residency = Residency(EXPERTS, [1, 1])
    early, late = np.full((60, 1), 5, np.int32), np.full((60, 1), 6, np.int32)
    residency.chunk(0, np.concatenate([late, early]))
    residency.chunk(1, np.concatenate([early, late]))
    move(residency, 0)
    assert residency.slot_of[0, 5] == residency.slot_of[1, 6] == 0


def test_a_prompt_fills_all_slots_at_once() -> None:
    """With experts that it never chose too; a single token fills only as many as it chose."""
    residency = Residency(EXPERTS, [EXPERTS - 1, 3])
    ids = np.array([[4, 9], [9, 4], [9, 2]], np.int32)
    for layer in (0, 1):
        residency.chunk(layer, ids[:1])
    assert len(move(residency, 0)) == 4
    for layer in (0, 1):
        residency.chunk(layer, ids)
    move(residency, 0)
    assert np.count_nonzero(residency.slot_of >= 0, axis=1).tolist() == [EXPERTS - 1, 3]
    assert (residency.slot_of[1, [2, 4, 9]] >= 0).all()


@pytest.mark.parametrize("slots", [[0], [EXPERTS], [3, EXPERTS + 1]])
def test_layers_without_a_choice_do_not_belong_here(slots: list[int]) -> None:
    with pytest.raises(ValueError, match="slots"):
        Residency(EXPERTS, slots)


# ---- traces ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_slots_meet_what_is_chosen(name: str, share: float) -> None:
    """`python -m tests.support.residency` prints the whole table."""
    experts, prompt = 64, 100
    trace = TRACES[name](700, 2, experts, 4)
    found = compare(trace, experts, int(share * experts), prompt)
    assert found["ours"].hits >= found["LRU"].hits
    least = 0.9 if name == "drifting topics" else 0.85
    assert found["ours"].hits >= least * found["oracle"].hits
    assert found["ours"].uploads < found["LRU"].uploads


def test_uploads_are_paced_by_the_link() -> None:
    now = [0.0]
    pace = UploadPace([1000, 2000], lambda: now[0])
    assert pace.allowed() == [UNMEASURED] * 2
    pace.bytes_per_second = 1e6
    pace.allowed()
    now[0] += 0.01  # 10 kB, of which uploads take half: 2500 bytes a layer
    assert pace.allowed() == [2, 1]
    pace.spend(0, 2)
    pace.spend(1, 40)  # slots that were nobody's
    now[0] += 0.002
    assert pace.allowed() == [1, 0]
    now[0] += 1e3
    assert pace.allowed() == [BURST, BURST]
