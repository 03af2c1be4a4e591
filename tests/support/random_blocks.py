"""Random blocks of the types whose quantisers take seconds to start, IQ1 and IQ2, or are not here.

Any bits are a valid block of these types, so random ones reach every entry of their tables. Only
the float16 scale of each block is chosen: it gives the block the size of the values it stands for.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from engine.evaluation.random_rows import random_rows
from kernels import ggml
from kernels.ops import Bytes, Floats, Tensor
from kernels.quants import IK_TYPES, QuantType

RANDOM_TYPES = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"}) | IK_TYPES


def random_blocks(values: Floats, kind: QuantType) -> Bytes:
    """Blocks of `kind` as large as the rows of `values`, (rows, cols): (rows, bytes), uint8."""
    if kind.name in IK_TYPES:
        return random_rows(values, kind)
    targets = np.sqrt(np.square(values.reshape(-1, kind.block)).mean(axis=-1))
    rng = np.random.default_rng(zlib.crc32(kind.name.encode()))
    blocks = rng.integers(0, 256, (len(targets), kind.bytes), dtype=np.uint8)
    _set_scales(blocks, np.ones(len(targets), dtype=np.float16), kind)
    shape = (len(targets), kind.block)
    plain = ggml.dequantise(Tensor("blocks", kind, shape, blocks.reshape(-1)))
    sizes = np.sqrt(np.square(plain).mean(axis=-1))
    _set_scales(blocks, (targets / sizes).astype(np.float16), kind)
    return blocks.reshape(len(values), -1)


def _set_scales(blocks: Bytes, scales: npt.NDArray[np.float16], kind: QuantType) -> None:
    if kind.name != "IQ1_M":
        blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
        return
    # IQ1_M keeps a nibble of the scale at the top of each of its last four 16-bit words.
    words = np.ascontiguousarray(blocks[:, 48:]).view(np.uint16)
    bits = scales.view(np.uint16)[:, None]
    nibbles = bits >> np.array([0, 4, 8, 12], dtype=np.uint16) & 15
    words = (words & 0x0FFF) | (nibbles << 12)
    blocks[:, 48:] = words.astype(np.uint16).view(np.uint8)
