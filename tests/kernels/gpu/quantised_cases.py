"""Random weights of every GGUF type: any bits, with scales of the size that models have."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from engine.evaluation.random_rows import random_rows
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.memory.weight_store import WeightStore
from kernels.gpu.quant.formats import FORMATS
from kernels.gpu.quant.layout import Raw
from kernels.gpu.quant.weight import PackedWeight
from kernels.ops import Bytes, Tensor
from kernels.quants import BY_NAME, IK_TYPES

_HEADERS = {
    name: Raw(0, size, torch.float16) for name, size in (("Q4_K", 4), ("Q5_K", 4), ("IQ4_XS", 2))
}
"""Scales that lie in a plane of words."""


def random_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Weights of type `name` whose blocks are random bits, so that every code and place turns up."""
    kind = BY_NAME[name]
    if name in IK_TYPES:
        values = np.ones((int(np.prod(shape[:-1])), shape[-1]), dtype=np.float32)
        return Tensor(name, kind, shape, random_rows(values, kind).reshape(-1))
    rng = np.random.default_rng(zlib.crc32(name.encode()) + seed)
    count = int(np.prod(shape)) // kind.block
    blocks = rng.integers(0, 256, (count, kind.bytes), dtype=np.uint8)
    for plane in FORMATS[name].planes:
        if isinstance(plane, Raw) and plane.dtype in (torch.float16, torch.float32):
            _set_floats(blocks, plane, rng)
    if name in _HEADERS:
        _set_floats(blocks, _HEADERS[name], rng)
    if name == "BF16":
        values = rng.standard_normal(count).astype(np.float32).view(np.uint32)
        blocks[:] = (values >> 16).astype(np.uint16).view(np.uint8).reshape(count, 2)
    elif name == "MXFP4":
        blocks[:, 0] = rng.integers(118, 128, count)
    elif name == "NVFP4":
        blocks[:, :4] = rng.integers(0, 80, (count, 4))
        blocks[0, :4] = (0, 1, 7, 127)  # zero, subnormal numbers, the pattern of NaN
    elif name == "IQ1_M":
        blocks[:, [49, 51, 53, 55]] &= 15  # the float16 scale's four nibbles, lowest first
        blocks[:, 55] |= 0x20
        blocks[:, 53] |= rng.integers(0, 16, count, dtype=np.uint8) << 4
    return Tensor(name, kind, shape, blocks.reshape(-1))


def repack(tensor: Tensor, device: torch.device | str = "cpu") -> PackedWeight:
    """A file's weight on the device, as the op set loads it."""
    return WeightStore(TrackedAllocator(torch.device(device))).load(tensor)


def in_8_bits(x: torch.Tensor) -> torch.Tensor:
    """x (n, cols) as ggml's Q8_1 has it, in float64: 32 columns share a scale, halves are rounded away from zero."""
    blocks = x.detach().cpu().float().view(len(x), -1, 32)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    y = blocks * torch.where(scale > 0, 1 / scale, 0)
    rounded = (y.abs() + 0.5).floor() * y.sign()
    return (rounded.double() * scale.double()).view(x.shape)


def as_read(x: torch.Tensor, *names: str) -> torch.Tensor:
    """Few rows of activations as a product with weights of these types reads them, in float64."""
    rounded = all(FORMATS[name].dot is not None for name in names)
    return in_8_bits(x) if rounded else x.detach().cpu().double()


def _set_floats(blocks: Bytes, plane: Raw, rng: np.random.Generator) -> None:
    width = plane.stop - plane.start
    dtype = np.float16 if plane.dtype == torch.float16 else np.float32
    sign = rng.choice([-1.0, 1.0], (len(blocks), width // np.dtype(dtype).itemsize))
    values = (rng.uniform(0.01, 0.1, sign.shape) * sign).astype(dtype)
    blocks[:, plane.start : plane.stop] = values.view(np.uint8).reshape(len(blocks), width)
