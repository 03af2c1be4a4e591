"""Bytes that moving weights to a GPU takes there, beside the weights: arithmetic for the memory plan.

Needs neither torch nor a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels.gpu.packed_sizes import packed_bytes
from kernels.quants import QuantType

BLOCK_BYTES = 8 << 20
"""Bytes of a file that are copied at once."""
BUFFERS = 4
"""Blocks in pinned memory: some are read while others are copied. The device has room for one."""
STREAM_BUFFER = 64 << 20
"""Bytes that one of the two buffers for streamed experts has, unless one expert is larger."""

Kind = tuple[QuantType, tuple[int, ...]]
"""A stack of experts: its type and shape, (experts, rows, cols)."""


def expert_bytes(stacks: Sequence[Kind]) -> int:
    """Bytes of one expert on the device, all of its matrices together."""
    return sum(packed_bytes(kind, shape[-2:]) for kind, shape in stacks)


def experts_at_once(stacks: Sequence[Kind]) -> int:
    """Experts of a layer that one buffer holds."""
    return max(1, STREAM_BUFFER // expert_bytes(stacks))


def stream_bytes(layers: Sequence[Sequence[Kind]]) -> int:
    """Bytes of both buffers on the device, for layers whose experts have these gates, ups and downs."""
    return 2 * max((STREAM_BUFFER, *(expert_bytes(stacks) for stacks in layers)))
