"""The codebooks that types such as IQ2_XXS and MXFP4 index, asked of ggml; those of ik_llama.cpp are ours.

ggml dequantises blocks made up for the purpose: scale one, no signs, the index asked for. So no table is
copied here, and a type means what it means in llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from kernels import ggml, ik_types
from kernels.ops import Tensor
from kernels.quants import BY_NAME, IK_TYPES

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Grid:
    """`entries` rows of `width` values; entry i is reached by byte `low` = i % 256, `high` = i // 256.

    `unit` is the float16 scale that makes ggml's answer the entry itself.
    """

    entries: int
    width: int
    unit: float
    low: int = 2
    high: int = 3


_GRIDS = {
    "IQ2_XXS": _Grid(256, 8, 8.0),
    "IQ2_XS": _Grid(512, 8, 8.0),
    "IQ2_S": _Grid(1024, 8, 8.0, high=66),
    "IQ3_XXS": _Grid(256, 4, 4.0),
    "IQ3_S": _Grid(512, 4, 1.0, high=66),
    "IQ1_S": _Grid(2048, 8, 1.0, high=34),
}


_IK_VALUES = {
    "IQ2_K": ik_types.VALUES2,
    "IQ3_K": ik_types.VALUES3,
    "IQ4_K": ik_types.VALUES4,
    "IQ5_K": ik_types.VALUES5,
    "IQ6_K": ik_types.VALUES6,
}


@cache
def codebook(name: str, device: torch.device) -> torch.Tensor:
    """The int8 codebook `name`: a grid's rows one after another; or the 16 values of IQ4_NL or MXFP4, then,
    twice, the 16 bytes that `dots` chooses from; or the values of a type of ik_llama.cpp that are not moved."""
    if name in IK_TYPES:
        return torch.from_numpy(_ik_values(name)).to(device)
    values = _grid(name) if name in _GRIDS else _with_choices(_values(name))
    return torch.from_numpy(values.reshape(-1)).to(device)


def _ik_values(name: str) -> npt.NDArray[np.int8]:
    values = ik_types.PAIRS if name == "IQ2_KL" else np.rint(_IK_VALUES[name][0])
    return np.asarray(values, dtype=np.int8).reshape(-1)


def _grid(name: str) -> npt.NDArray[np.int8]:
    grid, kind = _GRIDS[name], BY_NAME[name]
    indices = np.arange(grid.entries)
    blocks = np.zeros((grid.entries, kind.bytes), dtype=np.uint8)
    blocks[:, :2] = np.array([grid.unit], dtype=np.float16).view(np.uint8)
    blocks[:, grid.low] = indices & 255
    if grid.entries > 256:
        blocks[:, grid.high] = indices >> 8
    # IQ1_S adds 0.125 to what the grid says; rounding takes that off.
    return np.rint(_dequantise(name, blocks)[:, : grid.width]).astype(np.int8)


def _values(name: str) -> npt.NDArray[np.int8]:
    blocks = np.zeros((1, BY_NAME[name].bytes), dtype=np.uint8)
    blocks[0, -16:] = np.arange(16)
    if name == "MXFP4":
        blocks[0, 0] = 128  # 2^0, as ggml halves the scale and doubles the values
    else:
        blocks[0, :2] = np.array([1.0], dtype=np.float16).view(np.uint8)
    return _dequantise(name, blocks)[0, :16].astype(np.int8)


def _with_choices(values: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """With them two tables of eight bytes, whose chosen bytes add up to the value.

    A nibble chooses in the lower table, with its fourth bit flipped in the upper one. Where that bit is set,
    PTX's prmt gives the sign of the byte, -1 or 0: what the other table makes up for.
    """
    lower, upper = values[:8], values[8:]
    lower_sign, upper_sign = -(lower < 0).astype(np.int8), -(upper < 0).astype(np.int8)
    choices = np.concatenate([lower - upper_sign, upper - lower_sign])
    assert ((choices[:8] < 0) == (lower < 0)).all() and ((choices[8:] < 0) == (upper < 0)).all()
    return np.concatenate([values, choices, choices])


def _dequantise(name: str, blocks: Bytes) -> npt.NDArray[np.float32]:
    kind = BY_NAME[name]
    return ggml.dequantise(Tensor(name, kind, (len(blocks), kind.block), blocks.reshape(-1)))
