"""The forward pass of one token as one native call.

The first token's ops run one by one and are recorded with their arguments; later tokens replay the list
with another token, position and page table. Python then takes no time between two ops, and the GIL is
released once a token and not fifty times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.cpu import native
from kernels.cpu.buffers import Array, expect_ints
from kernels.cpu.op_table import MOST_ARGUMENTS, NUMBERS, OPS
from kernels.ops import Ints, PassInput
from kernels.timing import OpTimes

_COMMAND = np.dtype([("op", np.int64), ("scalar", np.float64), ("a", np.int64, MOST_ARGUMENTS)])
"""`Command` of src/op_table.h."""


class Recording:
    """The native calls of one forward pass, and the buffers that they read and write."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.buffers: list[Array] = []


class Step:
    """A recorded forward pass of one token. Its first buffer is its input: a token or a hidden state."""

    def __init__(self, recording: Recording, result: Array) -> None:
        self._buffers = recording.buffers
        self._input = recording.buffers[0]
        self._commands = np.zeros(len(recording.calls), dtype=_COMMAND)
        self._arguments: npt.NDArray[np.int64] = self._commands["a"]
        self._names = [op_name(name) for name, _ in recording.calls]
        self._layers = [native.layer_of(*call) for call in recording.calls]
        with_slots: list[int] = []
        columns: list[int] = []
        places: list[tuple[int, int]] = []
        for number, (name, arguments) in enumerate(recording.calls):
            pointers = self._write(number, name, arguments)
            kv_slots = OPS[name].kv_slots
            if kv_slots is not None:
                with_slots.append(number)
                columns.append(kv_slots + 2)
            places += [(number, at) for at, p in pointers if p == result.ctypes.data]
        self._result = result
        # What the ops make is written straight to where it goes; an input that they change is copied.
        is_input = result.ctypes.data == self._input.ctypes.data
        self._places = None if is_input else tuple(np.array(places, np.intp).T)
        # A pass of recurrent layers alone has none.
        self._rows, self._pages = np.array(with_slots, np.intp), np.array(columns, np.intp)

    def _write(self, number: int, name: str, arguments: tuple[Any, ...]) -> list[tuple[int, int]]:
        """Write a command; its pointers, and where they are among its integers."""
        command = self._commands[number]
        command["op"] = NUMBERS[name]
        pairs = list(zip(OPS[name].expanded, arguments, strict=True))
        scalars = [value for kind, value in pairs if kind == "f"]
        integers = [(kind, int(value or 0)) for kind, value in pairs if kind != "f"]
        command["scalar"] = scalars[0] if scalars else 0.0
        command["a"][: len(integers)] = [value for _, value in integers]
        return [(at, value) for at, (kind, value) in enumerate(integers) if kind == "p"]

    def run(
        self,
        context: int,
        pass_input: PassInput,
        pages: Ints,
        start: int,
        times: OpTimes | None = None,
    ) -> Array:
        """The result for one token at position `start`, in a buffer of its own; `times` may follow."""
        expect_ints(pages, (pages.size,))
        result = np.empty(self._result.shape, dtype=np.float32)
        self._input[...] = pass_input
        rows, first = self._rows, self._pages
        self._arguments[rows, first] = pages.ctypes.data
        self._arguments[rows, first + 1] = pages.size
        self._arguments[rows, first + 2] = start
        if self._places is not None:
            self._arguments[self._places] = result.ctypes.data
        commands = self._commands
        count = len(commands)
        stamps = np.empty(count + 1, dtype=np.int64) if times is not None else None
        address = stamps.ctypes.data if stamps is not None else None
        native.check(native.load().kt_replay(context, commands.ctypes.data, count, address))
        if times is not None and stamps is not None:
            times.ops(self._names, self._layers, stamps)
        if self._places is None:
            result[...] = self._result
        return result


def op_name(name: str) -> str:
    """A native function's name as the op set has it."""
    return name.removeprefix("kt_")
