"""Bytes and buckets on a GPU that a memory plan needs: arithmetic, without torch and without a GPU.

- a weight: how many bytes of a file's block go to each plane (`quant.formats` says what the planes hold);
- a transfer: pinned blocks while weights are loaded, buffers for streamed experts;
- a pass: for how many new tokens attention is planned, compiled and given scratch memory, and what a recurrent
  layer takes for its time.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels.quants import QuantType
from kernels.recurrent import DeltaNet
from kernels.sizes import PROMPT_CHUNK

BLOCK = 32
"""Columns that share four words, in every type; rows without blocks (F32, F16, BF16) are filled up to it."""
ALIGNMENT = 128
"""Every plane begins at a multiple of so many bytes: one cache line."""

PLANES: dict[str, tuple[int, ...]] = {
    "F32": (4,),
    "F16": (2,),
    "BF16": (2,),
    "Q1_0": (16, 2),
    "Q2_0": (16, 2),
    "Q4_0": (16, 2),
    "Q4_1": (16, 4),
    "Q5_0": (16, 4, 2),
    "Q5_1": (16, 4, 4),
    "Q8_0": (32, 2),
    "Q2_K": (64, 16, 4),
    "Q3_K": (64, 32, 12, 2),
    "Q4_K": (128, 16),
    "Q5_K": (128, 32, 16),
    "Q6_K": (128, 64, 16, 2),
    "TQ1_0": (52, 2),
    "TQ2_0": (64, 2),
    "IQ4_NL": (16, 2),
    "IQ4_XS": (128, 8),
    "MXFP4": (16, 1),
    "NVFP4": (32, 4),
    "IQ2_XXS": (64, 2),
    "IQ2_XS": (64, 8, 2),
    "IQ2_S": (32, 32, 8, 8, 2),
    "IQ3_XXS": (64, 32, 2),
    "IQ3_S": (64, 8, 32, 4, 2),
    "IQ1_S": (32, 16, 2),
    "IQ1_M": (32, 16, 8),
    "Q6_0": (16, 8, 2),
    "IQ2_K": (64, 4, 8),
    "IQ3_K": (64, 32, 6, 8),
    "IQ4_K": (128, 16),
    "IQ5_K": (128, 32, 16),
    "IQ6_K": (128, 64, 4, 16),
    "IQ4_KS": (128, 8, 4),
    "IQ2_KS": (64, 6, 2),
    "IQ4_KSS": (128, 4),
    "IQ5_KS": (128, 32, 8, 4),
    "IQ3_KS": (64, 32, 6, 2),
    "IQ2_KL": (64, 16, 6, 2),
    "IQ1_KT": (32, 16, 8, 4),
    "IQ2_KT": (64, 4, 4),
    "IQ3_KT": (64, 32, 4, 4),
    "IQ4_KT": (64, 32, 32, 4),
}
"""Bytes of a block in each plane, by type. A row's own scale is there once for each of its blocks."""


def packed_bytes(kind: QuantType, shape: tuple[int, ...]) -> int:
    """Bytes of a weight of this shape, (rows, cols) or (count, rows, cols), on the device.

    Raises `ValueError` for a type that no GPU product reads.
    """
    if kind.name not in PLANES:
        raise ValueError(f"no GPU product reads {kind.name}")
    *count, rows, cols = shape
    per_row = -(-cols // BLOCK) * BLOCK if kind.block == 1 else kind.row_blocks(cols)
    blocks = rows * per_row
    matrix = sum(-(-blocks * size // ALIGNMENT) * ALIGNMENT for size in PLANES[kind.name])
    return matrix * (count[0] if count else 1)


_VECTORS = ("gate_inp_shexp", "ssm_conv1d")
"""Tensors that ops take as vectors whatever dimensions a file gives them."""


def device_bytes(name: str, kind: QuantType, shape: tuple[int, ...]) -> int:
    """Bytes of the tensor `name` on the device: vectors are float32 there, matrices packed."""
    if name.endswith("_exps.bias"):  # a stack of one row an expert
        return packed_bytes(kind, (shape[0], 1, *shape[1:]))
    if len(shape) == 1 or name.endswith(".bias") or any(part in name for part in _VECTORS):
        count = 4
        for size in shape:
            count *= size
        return count
    return packed_bytes(kind, shape)


BLOCK_BYTES = 8 << 20
"""Bytes of a file that are copied at once."""
BUFFERS = 4
"""Blocks in pinned memory: some are read while others are copied. The device has room for one."""
STREAM_BUFFER, STREAM_PART, LONG_PART = 64 << 20, 24, 8
"""Bytes that one of the buffers for streamed experts has, unless one expert or this part of a layer's experts is larger:
while attention computes, copies go on as long as there are buffers, and large layers belong to long attention; the
second part in chunks of more than `LONG` tokens, whose attention takes longer than their copies do;"""
LONG = 2048
STREAM_BUFFERS = 4
"""and how many there are: one computes, and the others are filled while attention does. With three,
`tests/support/prompt_timeline.py` falls to 0.84 of its bound."""

Kind = tuple[QuantType, tuple[int, ...]]
"""A stack of experts: its type and shape, (experts, rows, cols)."""


def expert_bytes(stacks: Sequence[Kind]) -> int:
    """Bytes of one expert on the device, all of its matrices together."""
    return sum(packed_bytes(kind, shape[-2:]) for kind, shape in stacks)


def buffer_bytes(expert: int, experts: int, tokens: int = PROMPT_CHUNK) -> int:
    """Bytes of a buffer for a layer of so many experts of so many bytes, in chunks of so many tokens."""
    part = STREAM_PART if tokens <= LONG else LONG_PART
    return max(STREAM_BUFFER, expert, expert * experts // part)


def experts_at_once(stacks: Sequence[Kind], tokens: int = PROMPT_CHUNK) -> int:
    """Experts of a layer that one buffer holds."""
    expert = expert_bytes(stacks)
    return buffer_bytes(expert, stacks[0][1][0], tokens) // expert


def stream_bytes(layers: Sequence[Sequence[Kind]], tokens: int = PROMPT_CHUNK) -> int:
    """Bytes of the buffers on the device, for layers whose experts have these gates, ups and downs."""
    sizes = (buffer_bytes(expert_bytes(stacks), stacks[0][1][0], tokens) for stacks in layers)
    return STREAM_BUFFERS * max(sizes, default=STREAM_BUFFER)


BUCKETS = (1, 8, 32, 128, PROMPT_CHUNK)
"""Numbers of new tokens that attention is planned, compiled and given scratch memory for. A pass of any
number takes the next larger plan, so that a load can try them all: nothing is compiled or allocated in the
middle of a conversation."""


def buckets(chunk: int) -> tuple[int, ...]:
    """The buckets of passes of up to so many tokens."""
    return (*BUCKETS, *(1 << n for n in range(BUCKETS[-1].bit_length(), chunk.bit_length())))


def bucket(tokens: int) -> int:
    """The bucket that a pass of so many tokens is in; above the last one, a power of two."""
    return next((size for size in BUCKETS if tokens <= size), power_of_two(tokens))


def power_of_two(count: int) -> int:
    """The least power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


RECURRENT_STEPS = 8
"""New tokens that a recurrent layer takes one by one: a bucket. More go in chunks."""
RECURRENT_CHUNK = 32
"""Tokens of a chunk, a power of two. Of 64, the inverses alone would cost as much as all the rest."""


def recurrent_bytes(net: DeltaNet, tokens: int) -> int:
    """Bytes that `delta_net` takes from torch for so many new tokens, its result included."""
    floats = tokens * (net.conv_features + net.values)
    if tokens > RECURRENT_STEPS:
        chunks = -(-tokens // RECURRENT_CHUNK)
        floats += net.value_heads * chunks * 2 * (RECURRENT_CHUNK + 1) * RECURRENT_CHUNK
    return 4 * floats
