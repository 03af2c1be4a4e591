"""Weights on their way into the L2 cache while the device waits for the host.

Between a layer's request and its answer a device without experts of its own has nothing to do, for longer than it
takes to read all matrices up to the next request. They are known from the pass before: every token reads the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.quant.words import INTERPRETED

SHARE = 0.75
"""Part of the L2 cache that is filled: activations and the KV cache pass through it too."""
MOST = 8
"""Matrices that are fetched at once."""
_LINE, _LINES = tl.constexpr(128), tl.constexpr(128)
"""Bytes of a line, and lines that a program asks for at a time."""

Parts = tuple[tuple[X, int], ...]
"""Where matrices lie, and how many lines of each are to come."""


class ReadAhead:
    """What follows the requests of a device's passes of one token. One thread uses it."""

    def __init__(self, device: torch.device) -> None:
        self._room = int(SHARE * l2_bytes(device)) // _LINE.value
        self._following: dict[Hashable, list[PackedWeight]] = {}
        self._noting: list[PackedWeight] | None = None

    def behind(self, request: Hashable) -> None:
        """What `note` is told from now on comes behind this request."""
        self._noting = self._following[request] = []

    def note(self, weights: Sequence[PackedWeight]) -> None:
        """One token reads these."""
        if self._noting is not None:
            self._noting += weights

    def end(self) -> None:
        """A pass begins."""
        self._noting = None

    def parts(self, request: Hashable) -> Parts | None:
        """What is to be fetched behind a request, in the order in which it is read; None where that is not known."""
        left, parts = self._room, []
        for weight in self._following.get(request, ())[:MOST]:
            lines = min(-(-weight.nbytes // _LINE.value), left)
            if lines > 0:
                parts.append((weight.data, lines))
                left -= lines
        return tuple(parts) or None


def l2_bytes(device: torch.device) -> int:
    """Of the device's L2 cache; of a usual one where there is no device."""
    if device.type != "cuda":
        return 32 << 20
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


@triton.jit
def fetch(parts, program, programs):
    """One of `programs` programs' share of the parts' lines comes into the L2 cache; nobody waits for them."""
    for part in tl.static_range(len(parts)):
        data, lines = parts[part]
        for start in range(program * _LINES, lines, programs * _LINES):
            line = tl.minimum(start + tl.arange(0, _LINES), lines - 1).to(tl.int64)
            _fetch_lines(data + line * _LINE)


@triton.jit
def _fetch_lines(pointer):
    if not INTERPRETED:
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
            "=r,l",
            [pointer],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
