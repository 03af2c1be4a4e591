"""Bytes of a weight as it lies on a GPU: the arithmetic of `quantised_weight.packed_bytes` without torch.

Knows how many bytes of a file's block go to each plane. `quantised_formats` says what the planes hold;
tests/unit/test_packed_sizes.py ties the two.
"""

from __future__ import annotations

from kernels.quants import QuantType

BLOCK = 32
"""Columns to which rows without blocks (F32, F16, BF16) are filled up."""
ALIGNMENT = 128
"""Every plane begins at a multiple of so many bytes."""

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
    "Q4_K": (128, 12, 4),
    "Q5_K": (128, 32, 12, 4),
    "Q6_K": (128, 64, 16, 2),
    "TQ1_0": (52, 2),
    "TQ2_0": (64, 2),
    "IQ4_NL": (16, 2),
    "IQ4_XS": (128, 4, 2, 2),
    "MXFP4": (16, 1),
    "NVFP4": (32, 4),
    "IQ2_XXS": (64, 2),
    "IQ2_XS": (64, 8, 2),
    "IQ2_S": (32, 32, 8, 8, 2),
    "IQ3_XXS": (64, 32, 2),
    "IQ3_S": (64, 8, 32, 4, 2),
    "IQ1_S": (32, 16, 2),
    "IQ1_M": (32, 16, 8),
}
"""Bytes of a block in each plane, by type."""


def packed_bytes(kind: QuantType, shape: tuple[int, ...]) -> int:
    """Bytes of a weight of this shape, (rows, cols) or (count, rows, cols), on the device.

    Raises `ValueError` for a type that no GPU product reads.
    """
    if kind.name not in PLANES:
        raise ValueError(f"no GPU product reads {kind.name}")
    *count, rows, cols = shape
    per_row = -(-cols // BLOCK) * BLOCK if kind.block == 1 else kind.row_bytes(cols) // kind.bytes
    blocks = rows * per_row
    matrix = sum(-(-blocks * size // ALIGNMENT) * ALIGNMENT for size in PLANES[kind.name])
    return matrix * (count[0] if count else 1)


def device_bytes(name: str, kind: QuantType, shape: tuple[int, ...]) -> int:
    """Bytes of the tensor `name` on the device: vectors are float32 there, matrices packed."""
    if len(shape) == 1 or name.endswith(".bias") or "gate_inp_shexp" in name:
        count = 4
        for size in shape:
            count *= size
        return count
    return packed_bytes(kind, shape)
