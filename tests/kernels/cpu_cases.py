"""Random data for the CPU kernels' tests, and the float32 oracle beside them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine.evaluation.quantise import quantise
from engine.evaluation.random_rows import RANDOM_TYPES, random_rows
from kernels import ggml, ik_types
from kernels.cpu import CpuOps
from kernels.cpu.buffers import Cache
from kernels.cpu.native import supported_isas
from kernels.ops import Floats, Tensor
from kernels.quants import BY_NAME, IK_TYPES, MATRIX_TYPES
from kernels.reference import ReferenceOps

FLOAT_TYPES = ("F32", "F16", "BF16")
BLOCK_TYPES = tuple(sorted(MATRIX_TYPES.difference(FLOAT_TYPES)))
ISAS = tuple(supported_isas())
REFERENCE = ReferenceOps()

torch.set_num_threads(1)  # small tensors; OpenMP's waiting threads would starve ours


@cache
def cpu_ops(threads: int = 2, isa: str | None = None) -> CpuOps:
    """One CpuOps for each setting, kept for the whole test run."""
    return CpuOps(threads, isa)


def normal(seed: int, *shape: int, scale: float = 1.0) -> Floats:
    """Normally distributed float32 of this shape."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def tensor(values: Floats, kind: str = "F32", name: str = "weight") -> Tensor:
    """`values` as a file would hold them in type `kind`."""
    if kind in RANDOM_TYPES:
        data = random_rows(values.reshape(-1, values.shape[-1]), BY_NAME[kind]).reshape(-1)
    else:
        data = quantise(values, BY_NAME[kind])
    return Tensor(name, BY_NAME[kind], values.shape, data)


def unaligned(weights: Tensor) -> Tensor:
    """The same weights at an odd address, with nothing readable assumed behind them."""
    data = np.empty(weights.data.nbytes + 1, dtype=np.uint8)
    data[1:] = weights.data
    return Tensor(weights.name, weights.type, weights.shape, data[1:])


def relative_error(got: Any, wanted: Any) -> float:
    """Largest difference over the largest wanted magnitude."""
    got, wanted = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def noise(got: Any, wanted: Any) -> float:
    """Mean square of the difference over the mean square of what was wanted."""
    got, wanted = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    return float(np.square(got - wanted).mean() / np.square(wanted).mean())


def torch_copy(values: Floats) -> torch.Tensor:
    """A torch tensor of its own."""
    return torch.from_numpy(values.copy())


def multiplied(weights: Tensor) -> npt.NDArray[np.float64]:
    """The weights that products read, in float64."""
    if weights.type.name in IK_TYPES:
        return ik_types.dequantise(weights, rounded=True).astype(np.float64)
    return ggml.dequantise(weights).astype(np.float64)


def cache_rows(cache: Cache, values: bool = False) -> Floats:
    """What a cache holds, as float32 (layers, pages, page_size, heads, features)."""
    shape, data = cache.shape, cache.values if values else cache.keys
    features, size = shape.value if values else shape.key, shape.page_size
    number, block = (np.int8, 32) if shape.kind == "q8" else (np.int16, 128)
    wide, outer = -(-features // 16) * 16, data.shape[:3]
    end = wide * size * np.dtype(number).itemsize
    numbers = data[..., :end].view(number)
    if values:
        rows = numbers.reshape(*outer, size // 2, wide, 2).swapaxes(-1, -2)
    else:
        rows = numbers.reshape(*outer, wide // 2, size, 2).swapaxes(-2, -3)
    blocks = -(-features // block)
    scales = data[..., end : end + 2 * blocks * size].view(np.float16)
    each = scales.reshape(*outer, blocks, size).swapaxes(-1, -2).repeat(block, -1)[..., :features]
    whole = rows.reshape(*outer, size, wide)[..., :features].astype(np.float32)
    return (whole * each.astype(np.float32)).swapaxes(2, 3)


def block_size(kind: str) -> int:
    """Columns of the shortest row of a type."""
    return max(BY_NAME[kind].block, 1)


def rounded_activations(x: Floats) -> Floats:
    """x as products with block types round it: 8 bits, a scale each 32 columns."""
    groups = x.reshape(-1, 32)
    scale = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127.0)
    return (np.rint(groups * (np.float32(1.0) / scale)) * scale).reshape(x.shape)
