"""The forward pass of one token as one native call.

The first token's ops run one by one and are written down with their arguments; later tokens repeat the
list with another token, position and page table. Python then takes no time between two ops, and the
interpreter's lock is given up once a token and not fifty times. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.cpu import native
from kernels.cpu.buffers import Array, expect_ints
from kernels.ops import Entry, Ints
from kernels.timing import OpTimes

Forward = Callable[[Entry, Ints, int], Array]
"""forward(entry, pages, start) -> the result's buffer"""

_OPS = (
    "kt_embed",
    "kt_norm",
    "kt_norm_linear",
    "kt_linear_add",
    "kt_rope_append",
    "kt_attention",
    "kt_latent_append",
    "kt_latent_attention",
    "kt_route",
    "kt_moe_add",
    "kt_ffn_add",
)
"""The numbers of `call` in src/api.cpp."""

_ARGUMENTS = 18
_COMMAND = np.dtype([("op", np.int64), ("scalar", np.float64), ("a", np.int64, _ARGUMENTS)])


class Recording:
    """The native calls of one forward pass, and the buffers that they read and write."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.buffers: list[Array] = []


class Step:
    """A recorded forward pass of one token. Its first buffer is what it begins with: token or row."""

    def __init__(self, recording: Recording, result: Array) -> None:
        self._buffers = recording.buffers
        self._entry = recording.buffers[0]
        self._commands = np.zeros(len(recording.calls), dtype=_COMMAND)
        self._arguments: npt.NDArray[np.int64] = self._commands["a"]
        self._names = [op_name(name) for name, _ in recording.calls]
        self._layers = [native.layer_of(*call) for call in recording.calls]
        places: list[int] = []
        columns: list[int] = []
        written: list[tuple[int, int]] = []
        for number, (name, arguments) in enumerate(recording.calls):
            integers = self._write(number, name, arguments)
            if name in native.PLACE_AT:
                places.append(number)
                columns.append(native.PLACE_AT[name] + 2)
            if result.ctypes.data in integers:
                written.append((number, integers.index(result.ctypes.data)))
        self._result = result
        # Logits are written by one op, straight to where they go; a residual by many.
        self._direct = written[0] if len(written) == 1 else None
        self._rows, self._pages = np.array(places), np.array(columns)

    def _write(self, number: int, name: str, arguments: tuple[Any, ...]) -> list[int]:
        kinds = native.kinds_of(name)
        command = self._commands[number]
        command["op"] = _OPS.index(name)
        pairs = list(zip(kinds, arguments, strict=True))
        scalars = [value for kind, value in pairs if kind is native.FLOAT]
        integers = [int(value or 0) for kind, value in pairs if kind is not native.FLOAT]
        command["scalar"] = scalars[0] if scalars else 0.0
        command["a"][: len(integers)] = integers
        return integers

    def run(
        self, context: int, entry: Entry, pages: Ints, start: int, times: OpTimes | None = None
    ) -> Array:
        """The result for one token at position `start`, in a buffer of its own; `times` may follow."""
        expect_ints(pages, (pages.size,))
        result = np.empty(self._result.shape, dtype=np.float32)
        self._entry[...] = entry
        rows, first = self._rows, self._pages
        self._arguments[rows, first] = pages.ctypes.data
        self._arguments[rows, first + 1] = pages.size
        self._arguments[rows, first + 2] = start
        if self._direct is not None:
            self._arguments[self._direct] = result.ctypes.data
        commands = self._commands
        count = len(commands)
        stamps = np.empty(count + 1, dtype=np.int64) if times is not None else None
        address = stamps.ctypes.data if stamps is not None else None
        native.check(native.load().kt_replay(context, commands.ctypes.data, count, address))
        if times is not None and stamps is not None:
            times.ops(self._names, self._layers, stamps)
        if self._direct is None:
            result[...] = self._result
        return result


def op_name(name: str) -> str:
    """A native function's name as the op set has it."""
    return name.removeprefix("kt_")
