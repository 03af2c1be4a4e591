"""Routed experts on the host for a device that asks while it works: questions and answers in shared memory.

A device's captured pass cannot call Python. It puts a layer's question into a `Letter` and raises a
flag; one native call answers a token's letters one after another (`Letters.follow`), or the device
calls `kt_answer` itself. Knows no device: only memory that it and the host both see.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from typing import Any

import numpy as np

from kernels.cpu import native
from kernels.cpu.buffers import Weight, address, expect_matrices
from kernels.cpu.context import NativeContext
from kernels.ops import Floats, Ints

PATIENCE = 20.0
"""Seconds without a question after which a device is taken to have failed."""

Shared = Callable[[tuple[int, ...], Any], Any]
"""Makes a zeroed array, (shape, kind), that the device sees too."""


class _Struct(ctypes.Structure):
    """`struct Letter` of letters.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("context", "gate", "up", "down", "x", "ids", "weights")),
        *((name, c_void_p) for name in ("slots", "here", "answer", "asked", "answered")),
        *((name, c_int64) for name in ("top_k", "hidden", "status", "begun", "done")),
    )


class Letter:
    """One layer's question and answer (`kernels.device.Letter`).

    `slots` (experts,) int32 says which experts the device computes itself; None: none.
    """

    def __init__(
        self,
        ops: NativeContext,
        experts: tuple[Weight, Weight, Weight],
        top_k: int,
        slots: Ints | None,
        shared: Shared,
    ) -> None:
        gate, up, down = experts
        expect_matrices(up, gate.count, gate.rows, gate.cols)
        expect_matrices(down, gate.count, gate.cols, gate.rows)
        if slots is not None and slots.shape != (gate.count,):
            raise ValueError(f"{slots.shape} slots for {gate.count} experts")
        self.x: Floats = shared((1, gate.cols), np.float32)
        self.ids: Ints = shared((1, top_k), np.int32)
        self.weights: Floats = shared((1, top_k), np.float32)
        self.answer: Floats = shared((1, gate.cols), np.float32)
        self.asked: Ints = shared((1,), np.int32)
        self.answered: Ints = shared((1,), np.int32)
        self._here = np.empty(top_k, dtype=np.int32)
        self._keep = ops, experts, slots
        self._struct = _Struct(
            *(ops._alive(), gate.pointer, up.pointer, down.pointer),
            *(address(array) for array in (self.x, self.ids, self.weights)),
            None if slots is None else address(slots),
            *(address(array) for array in (self._here, self.answer, self.asked, self.answered)),
            *(top_k, gate.cols, 0, 0, 0),
        )
        self.address = ctypes.addressof(self._struct)

    def check(self) -> None:
        """Raise what went wrong in the last answer."""
        native.check(self._struct.status)

    @property
    def span(self) -> tuple[int, int]:
        """When the last answer was begun and done, in ns of the steady clock."""
        return self._struct.begun, self._struct.done


class Letters:
    """The letters of one token's pass, in the order in which the device asks."""

    def __init__(self, letters: Sequence[Letter]) -> None:
        self._letters = list(letters)
        self._pointers = (c_void_p * len(letters))(*(letter.address for letter in letters))
        self._native = native.load()

    def follow(self, patience: float = PATIENCE) -> None:
        """Answer every letter as the device asks. Raises what an answer's failure means, and
        `TimeoutError` where the device does not ask."""
        count = len(self._letters)
        native.check(self._native.kt_follow(self._pointers, count, int(patience * 1e9)))

    def release(self) -> None:
        """Nobody asks any more: `follow` goes through, and what it still answers is worth nothing."""
        for letter in self._letters:
            letter.asked[0] = 1

    def clear(self) -> None:
        """No question and no answer is there. The device must be idle, and nobody following."""
        for letter in self._letters:
            letter.asked[0] = letter.answered[0] = 0

    def check(self) -> None:
        """Raise what went wrong in answers that the device called for itself."""
        for letter in self._letters:
            letter.check()
