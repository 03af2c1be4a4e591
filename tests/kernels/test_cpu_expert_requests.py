"""Experts that a device asks for: the same sums as `moe_add`, and no question left without an answer."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from kernels.cpu import CpuOps
from kernels.cpu.expert_requests import Letter, Letters
from kernels.ops import Ints, Tensor
from kernels.quants import BY_NAME

EXPERTS, HIDDEN, WIDTH, TOP_K, LAYERS = 6, 64, 32, 3, 4
RNG = np.random.default_rng(3)


def stack(rows: int, cols: int) -> Tensor:
    values = RNG.standard_normal((EXPERTS, rows, cols)).astype(np.float32)
    return Tensor("x", BY_NAME["F32"], values.shape, values.reshape(-1).view(np.uint8))


class Office:
    """A host with one stack of experts a layer, and the device's end of every letter."""

    def __init__(self, slots: Ints | None = None) -> None:
        self.ops = CpuOps(2)
        self.layers: list[Any] = [
            tuple(map(self.ops.matrix, (stack(WIDTH, HIDDEN), stack(WIDTH, HIDDEN), stack(HIDDEN, WIDTH))))
            for _ in range(LAYERS)
        ]  # fmt: skip
        self.letters = [Letter(self.ops, layer, TOP_K, slots, np.zeros) for layer in self.layers]
        for letter in self.letters:
            letter.x[:] = RNG.standard_normal(letter.x.shape)
            letter.weights[:] = RNG.random(letter.weights.shape)
            letter.ids[0] = RNG.permutation(EXPERTS)[:TOP_K]

    def ask(self) -> None:
        """What a device does: raise a flag, wait for the other and take it back."""
        for letter in self.letters:
            letter.asked[0] = 1
            while not letter.answered[0]:
                time.sleep(0)
            letter.answered[0] = 0

    def wanted(self, number: int, ids: Ints) -> Any:
        letter, total = self.letters[number], np.zeros((1, HIDDEN), np.float32)
        self.ops.moe_add(letter.x, ids, letter.weights, *self.layers[number], total)
        return total


def exchange(office: Office) -> None:
    device = threading.Thread(target=office.ask)
    device.start()
    Letters(office.letters).follow(5.0)
    device.join(5.0)
    assert not device.is_alive()


def test_every_layer_is_answered_with_its_own_experts() -> None:
    office = Office()
    for _ in range(3):  # tokens
        exchange(office)
        for number, letter in enumerate(office.letters):
            assert np.array_equal(letter.answer, office.wanted(number, letter.ids))
            begun, done = letter.span
            assert 0 < begun <= done


def test_experts_with_a_slot_are_left_to_the_device() -> None:
    slots = np.array([-1, 0, -1, 1, -1, -1], np.int32)
    office = Office(slots)
    exchange(office)
    for number, letter in enumerate(office.letters):
        here = np.where(slots[letter.ids] >= 0, -1, letter.ids).astype(np.int32)
        assert np.array_equal(letter.answer, office.wanted(number, here))
    slots[:] = 0  # as residency changes between tokens
    exchange(office)
    assert all(not letter.answer.any() for letter in office.letters)


def test_a_wrong_id_is_an_error_and_the_device_goes_on() -> None:
    office = Office()
    office.letters[1].ids[0, 0] = EXPERTS
    with pytest.raises(IndexError, match="out of range"):
        exchange(office)
    office.letters[1].ids[0, 0] = 0
    exchange(office)


def test_a_device_that_never_asks_is_given_up() -> None:
    office = Office()
    with pytest.raises(TimeoutError, match="did not ask"):
        Letters(office.letters).follow(0.01)
    assert all(letter.answered[0] for letter in office.letters)  # should it come back, it ends


def test_a_device_may_call_for_an_answer_itself() -> None:
    from kernels.cpu import native

    office = Office()
    letter = office.letters[0]
    native.load().kt_answer(letter.address)
    assert np.array_equal(letter.answer, office.wanted(0, letter.ids))
    letter.check()
    letter.ids[0, 0] = -2
    native.load().kt_answer(letter.address)
    with pytest.raises(IndexError):
        Letters(office.letters).check()


def test_experts_of_other_shapes_are_refused() -> None:
    office = Office()
    gate, up, down = office.layers[0]
    with pytest.raises(ValueError, match="wanted"):
        Letter(office.ops, (gate, down, up), TOP_K, None, np.zeros)
    with pytest.raises(ValueError, match="slots"):
        Letter(office.ops, (gate, up, down), TOP_K, np.zeros(3, np.int32), np.zeros)
