"""Sizes on a GPU without torch are those that packing makes."""

from __future__ import annotations

import pytest

from kernels.gpu.quant.formats import FORMATS
from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.quant.weight import packed_bytes as packed_by_torch
from kernels.gpu.sizes import PLANES, device_bytes, packed_bytes
from kernels.quants import BY_NAME

SHAPES = ((1, 1), (3, 2), (7, 3), (33, 1), (128, 6), (3, 5, 2), (2, 1, 1))
"""Rows, blocks of a row; three: matrices, rows, blocks."""


def test_every_type_has_its_planes() -> None:
    assert {
        name: tuple(plane.stop - plane.start for plane in known.planes)
        for name, known in FORMATS.items()
    } == PLANES


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sizes", SHAPES)
def test_bytes_are_those_of_packing(name: str, sizes: tuple[int, ...]) -> None:
    kind = BY_NAME[name]
    # Types without blocks have rows of any length.
    cols = sizes[-1] * kind.block + (30 if kind.block == 1 else 0)
    shape = (*sizes[:-1], cols)
    assert packed_bytes(kind, shape) == packed_by_torch(kind, shape)
    assert packed_bytes(kind, shape) == PackedWeight.empty(kind, shape).nbytes


def test_vectors_are_float32_there() -> None:
    assert device_bytes("blk.0.attn_norm.weight", BY_NAME["F16"], (100,)) == 400
    assert device_bytes("blk.0.attn_q.weight", BY_NAME["F16"], (2, 100)) == 2 * 128 * 2


def test_types_that_no_product_reads_are_refused() -> None:
    with pytest.raises(ValueError, match="Q8_K"):
        packed_bytes(BY_NAME["Q8_K"], (1, 256))
