"""How keys and values are stored on the GPU: float16, or 8 bits with a scale for every 32 features.

The one module that knows the numbers of a cached row; its callers know where a row lies. Rows in 8 bits are
ggml's Q8_0 in two planes, so that a tile's numbers are read as whole words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor as X

from kernels.ops import Q8_BLOCK, CacheKind, CacheShape

_BLOCK = tl.constexpr(Q8_BLOCK)
_NO_MODIFIER = tl.constexpr("")
"""Triton 3.6 takes no bare string as a default."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One layer's keys or values: `numbers` (pages, page_size, heads, features), contiguous.

    float16; or int8, to be multiplied by `scales` (pages, page_size, heads, features / 32), float16.
    Positions go round in `ring` pages, or 0: they are in their sequence's.
    """

    numbers: X
    scales: X | None = None
    ring: int = 0

    def __post_init__(self) -> None:
        numbers, scales = self.numbers, self.scales
        wanted = torch.float16 if scales is None else torch.int8
        if numbers.dtype != wanted or not numbers.is_contiguous():
            raise ValueError(f"a cache of {numbers.dtype} with strides {numbers.stride()}")
        if scales is not None and (
            scales.shape != (*numbers.shape[:-1], numbers.shape[-1] // Q8_BLOCK)
            or scales.dtype != torch.float16
            or not scales.is_contiguous()
            or numbers.shape[-1] % Q8_BLOCK
        ):
            raise ValueError(f"scales {tuple(scales.shape)} for rows {tuple(numbers.shape)}")

    @property
    def page_size(self) -> int:
        return self.numbers.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(heads, features)"""
        return self.numbers.shape[2], self.numbers.shape[3]

    @property
    def planes(self) -> tuple[X, X]:
        """What a kernel takes: the numbers and the scales, which it does not read for float16."""
        return self.numbers, self.numbers if self.scales is None else self.scales


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class GpuCache:
    """Keys (layers, pages, page_size, heads, key) and values (…, value): float16, or int8 and scales."""

    keys: X
    values: X
    key_scales: X | None = None
    value_scales: X | None = None
    ring: int = 0
    """See `kernels.ops.CacheShape`."""

    @classmethod
    def allocate(cls, shape: CacheShape, device: torch.device) -> GpuCache:
        """Zeros."""

        def plane(features: int, kind: torch.dtype) -> X:
            size = (shape.layers, shape.pages, shape.page_size, shape.heads, features)
            return torch.zeros(size, dtype=kind, device=device)

        sizes = shape.key, shape.value
        number = torch.float16 if shape.kind == "f16" else torch.int8
        keys, values = (plane(size, number) for size in sizes)
        if shape.kind == "f16":
            return cls(keys, values, ring=shape.ring)
        key_scales, value_scales = (plane(size // Q8_BLOCK, torch.float16) for size in sizes)
        return cls(keys, values, key_scales, value_scales, shape.ring)

    @property
    def shape(self) -> CacheShape:
        kind: CacheKind = "f16" if self.key_scales is None else "q8"
        layers, pages, page_size, heads, key = self.keys.shape
        value = self.values.shape[4]
        return CacheShape(layers, pages, page_size, heads, key, value, kind, self.ring)

    @property
    def pages(self) -> int:
        return self.keys.shape[1]

    @property
    def page_size(self) -> int:
        return self.keys.shape[2]

    @property
    def positions(self) -> int:
        """Positions that one sequence can have."""
        return self.pages * self.page_size

    def key_rows(self, layer: int) -> Rows:
        scales = self.key_scales
        return Rows(self.keys[layer], None if scales is None else scales[layer], self.ring)

    def value_rows(self, layer: int) -> Rows:
        scales = self.value_scales
        return Rows(self.values[layer], None if scales is None else scales[layer], self.ring)

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page in every layer."""
        for plane in self._planes:
            plane[:, target] = plane[:, source]

    def page(self, page: int) -> list[X]:
        """Views of what a page holds in every layer."""
        return [plane[:, page] for plane in self._planes]

    @property
    def _planes(self) -> list[X]:
        planes = (self.keys, self.values, self.key_scales, self.value_scales)
        return [plane for plane in planes if plane is not None]


@triton.jit
def load_rows(
    numbers: tl.tensor,
    scales: tl.tensor,
    row: tl.tensor,
    inside: tl.tensor,
    WIDTH: tl.constexpr,
    FIRST: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    MODIFIER: tl.constexpr = _NO_MODIFIER,
) -> tl.tensor:
    """FEATURES features from FIRST of rows of WIDTH: (rows, BLOCK) float16, filled up with zeros.

    `row` (rows,) counts rows from the beginning of the plane. Rows not `inside` are zeros. MODIFIER is
    the cache modifier of the loads.
    """
    d = tl.arange(0, BLOCK)[None, :]
    from_numbers = numbers + (row * WIDTH + FIRST)[:, None] + d
    loaded = tl.load(
        from_numbers, mask=inside[:, None] & (d < FEATURES), other=0, cache_modifier=MODIFIER
    )
    if numbers.dtype.element_ty == tl.int8:
        ROWS: tl.constexpr = row.shape[0]
        BLOCKS: tl.constexpr = BLOCK // _BLOCK
        b = tl.arange(0, BLOCKS)[None, :]
        from_scales = scales + (row * (WIDTH // _BLOCK) + FIRST // _BLOCK)[:, None] + b
        mask = inside[:, None] & (b < FEATURES // _BLOCK)
        scale = tl.load(from_scales, mask=mask, other=0.0, cache_modifier=MODIFIER)
        wide = tl.broadcast_to(scale[:, :, None], [ROWS, BLOCKS, _BLOCK])
        loaded = loaded.to(tl.float16) * tl.reshape(wide, [ROWS, BLOCK])
    return loaded


@triton.jit
def store_row(
    x: tl.tensor,
    numbers: tl.tensor,
    scales: tl.tensor,
    row: tl.tensor,
    inside: tl.tensor,
    WIDTH: tl.constexpr,
    FIRST: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Store the first FEATURES of x (BLOCK,) float32 where `load_rows` finds them, if `inside`.

    8 bits are rounded as ggml's reference does it: halves away from zero, by the scale in float32.
    """
    d = tl.arange(0, BLOCK)
    mask = inside & (d < FEATURES)
    to_numbers = numbers + row * WIDTH + FIRST + d
    if numbers.dtype.element_ty == tl.int8:
        BLOCKS: tl.constexpr = BLOCK // _BLOCK
        blocks = tl.reshape(x, [BLOCKS, _BLOCK])
        scale = tl.math.div_rn(tl.max(tl.abs(blocks), axis=1), 127.0)
        inverse = tl.math.div_rn(1.0, tl.where(scale == 0.0, 1.0, scale))
        y = tl.where(scale == 0.0, 0.0, inverse)[:, None] * blocks
        below = tl.floor(tl.abs(y))
        size = below + tl.where(tl.abs(y) - below >= 0.5, 1.0, 0.0)
        rounded = tl.reshape(tl.where(y < 0.0, -size, size), [BLOCK])
        tl.store(to_numbers, rounded.to(tl.int8), mask=mask)
        b = tl.arange(0, BLOCKS)
        to_scales = scales + row * (WIDTH // _BLOCK) + FIRST // _BLOCK + b
        tl.store(to_scales, scale.to(tl.float16), mask=inside & (b < FEATURES // _BLOCK))
    else:
        tl.store(to_numbers, x.to(numbers.dtype.element_ty), mask=mask)
