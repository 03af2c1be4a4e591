"""Weights and KV caches of `CpuOps`, and the checks on the arrays that it is given.

Every array reaches native code through these checks, so that a wrong shape is a `ValueError` here
and never a stray read there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from kernels import ggml
from kernels.cpu.native import RopeStruct, RoutingStruct, load
from kernels.ops import Biases, Bytes, CacheShape, Gating, Rope, Routing, Tensor
from kernels.quants import MATRIX_TYPES

Array = npt.NDArray[Any]
"""Activations: float32, or int32 for the router's choice."""

PAGE_SIZES = (16, 32, 64, 128)
"""Positions of a page that attention's tiles are made of."""

_FLOAT = np.dtype(np.float32)
_INT = np.dtype(np.int32)
_Byte = ctypes.c_char
_addressof = ctypes.addressof


def address(array: Array) -> int:
    """Where a writable, C-contiguous array begins. Raises `ValueError` for any other."""
    try:
        return _addressof(_Byte.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"an activation buffer is not usable: {error}") from None


def rows_of(array: Array, cols: int) -> int:
    """n of a float32 (n, cols) array with n >= 1. Raises `ValueError` for any other."""
    shape: tuple[int, ...] = array.shape
    if len(shape) != 2 or shape[1] != cols or shape[0] < 1 or array.dtype is not _FLOAT:
        raise ValueError(f"wanted float32 (n, {cols}), got {array.dtype} {shape}")
    return shape[0]


def expect(array: Array, rows: int, cols: int) -> None:
    """Raise `ValueError` unless `array` is float32 (rows, cols)."""
    if array.shape != (rows, cols) or array.dtype is not _FLOAT:
        raise ValueError(f"wanted float32 ({rows}, {cols}), got {array.dtype} {array.shape}")


def expect_ints(array: Array, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless `array` is a contiguous int32 array of `shape`."""
    if array.shape != shape or array.dtype is not _INT or not array.flags.c_contiguous:
        raise ValueError(f"wanted int32 {shape}, got {array.dtype} {array.shape}")


class Weight:
    """Weights made ready: a native matrix over the file's bytes, or a float32 vector.

    `pointer` is the native matrix's handle or the vector's address. `count` is 0 for a vector and
    1 for a two-dimensional matrix. A matrix that is not `multiplied` is a table: its rows are read.
    """

    __slots__ = ("_free", "_keep", "batched", "cols", "count", "multiplied", "pointer", "rows")

    def __init__(
        self, pointer: int, count: int, rows: int, cols: int, batched: bool, keep: object
    ) -> None:
        self.pointer, self.count, self.rows, self.cols = pointer, count, rows, cols
        self.batched = batched
        self.multiplied = True
        self._keep = keep
        self._free = load().kt_matrix_free  # still there when the interpreter shuts down

    def __del__(self) -> None:
        if self.count and self.pointer:
            self._free(self.pointer)


def has_tiles(tensor: Tensor) -> bool:
    """Whether products read these weights from repacked tiles rather than from the file's bytes."""
    return bool(load().kt_has_tiles(tensor.type.id))


def matrix(context: int, tensor: Tensor, repack: bool = True) -> Weight:
    """A matrix of `tensor`: repacked into tiles, or over its data, which stay referenced.

    Raises `ValueError`.
    """
    kind, data = tensor.type, tensor.data
    if kind.name not in MATRIX_TYPES:
        raise ValueError(f"{tensor.name}: no products with {kind.name} weights")
    if len(tensor.shape) not in (2, 3) or min(tensor.shape) < 1:
        raise ValueError(f"{tensor.name}: a matrix has 2 or 3 dimensions, not {tensor.shape}")
    count = tensor.shape[0] if len(tensor.shape) == 3 else 1
    wanted = count * tensor.rows * kind.row_bytes(tensor.cols)
    if data.dtype != np.uint8 or data.nbytes != wanted or not data.flags.c_contiguous:
        raise ValueError(f"{tensor.name}: {wanted} contiguous bytes expected, got {data.nbytes}")
    pointer = load().kt_matrix(
        context,
        kind.id,
        kind.block,
        kind.bytes,
        count,
        tensor.rows,
        tensor.cols,
        data.ctypes.data,
        int(repack),
    )
    if not pointer:
        raise ValueError(f"{tensor.name}: no kernels for {kind.name} weights, or no memory")
    keep = None if repack and has_tiles(tensor) else data
    weight = Weight(pointer, count, tensor.rows, tensor.cols, len(tensor.shape) == 3, keep)
    weight.multiplied = repack or not has_tiles(tensor)
    return weight


def vector(tensor: Tensor) -> Weight:
    """A float32 copy of a tensor whose elements lie along one dimension. Raises `ValueError`."""
    values = np.array(ggml.dequantise(tensor).reshape(-1), dtype=np.float32)
    if values.size != max(tensor.shape):
        raise ValueError(f"{tensor.name}: a vector has one dimension, not {tensor.shape}")
    return Weight(address(values), 0, 1, values.size, False, values)


def expect_matrix(weight: Weight, cols: int) -> int:
    """Rows of one (rows, cols) matrix. Raises `ValueError` for any other."""
    if weight.cols != cols or weight.batched or not weight.count or not weight.multiplied:
        raise ValueError(f"wanted a matrix of {cols} columns, got {describe(weight)}")
    return weight.rows


def expect_table(weight: Weight) -> None:
    """Raise `ValueError` unless rows can be read from `weight`."""
    if weight.batched or not weight.count:
        raise ValueError(f"wanted a table, got {describe(weight)}")


def expect_matrices(weight: Weight, count: int, rows: int, cols: int) -> None:
    """Raise `ValueError` unless `weight` holds `count` (rows, cols) matrices."""
    if (weight.count, weight.rows, weight.cols) != (count, rows, cols) or not weight.multiplied:
        raise ValueError(f"wanted {count} matrices ({rows}, {cols}), got {describe(weight)}")


def vector_pointer(weight: Weight | None, size: int) -> int | None:
    """The address of a vector of `size`; None stays None. Raises `ValueError`."""
    if weight is None:
        return None
    if weight.count or weight.cols != size:
        raise ValueError(f"wanted a vector of {size}, got {describe(weight)}")
    return weight.pointer


def bias_pointers(
    biases: Biases[Weight] | None, gate: Weight, down: Weight
) -> Sequence[int | None]:
    """The native stacks of experts' biases; Nones where there are none. Raises `ValueError`."""
    if biases is None:
        return None, None, None
    for bias, rows in zip(biases, (gate.rows, gate.rows, down.rows), strict=True):
        expect_matrices(bias, gate.count, 1, rows)
    return [bias.pointer for bias in biases]


def describe(weight: Weight) -> str:
    """A weight's shape in words."""
    if not weight.count:
        return f"a vector of {weight.cols}"
    kind = "matrices" if weight.multiplied else "tables"
    return f"{weight.count} {kind} ({weight.rows}, {weight.cols})"


class Cache:
    """A KV cache in native memory, which is touched when it is written: keys (layers, pages, heads, bytes) as
    src/attention_cache.inc.h lays them out, values alike."""

    __slots__ = ("_free", "keys", "pointer", "shape", "values")

    def __init__(self, shape: CacheShape) -> None:
        self.pointer = 0
        if min(shape.layers, shape.pages, shape.page_size, shape.heads, shape.key) < 1:
            raise ValueError(f"an empty cache: {shape}")
        if shape.page_size not in PAGE_SIZES:
            raise ValueError(f"pages of {shape.page_size} positions, not one of {PAGE_SIZES}")
        self.shape = shape
        self._free = load().kt_cache_free
        self.pointer = load().kt_cache(
            shape.kind == "q8",
            shape.layers,
            shape.pages,
            shape.page_size,
            shape.heads,
            shape.key,
            shape.value,
            shape.ring,
        )
        if not self.pointer:
            raise MemoryError("no memory for a cache")
        self.keys, self.values = self._bytes(0), self._bytes(1)

    def _bytes(self, values: int) -> Bytes:
        """All keys, or all values; theirs is the memory of the cache."""
        shape = self.shape
        size = load().kt_cache_head_bytes(self.pointer, values)
        outer = (shape.layers, shape.pages, shape.heads, size)
        if not size:
            return np.empty(outer, np.uint8)
        count = int(np.prod(outer))
        data = (ctypes.c_uint8 * count).from_address(load().kt_cache_data(self.pointer, values))
        return np.ctypeslib.as_array(data).reshape(outer)

    def __del__(self) -> None:
        if self.pointer:
            self._free(self.pointer)


def rope_struct(rope: Rope) -> RopeStruct:
    """The native form of a rope; it keeps its frequencies alive."""
    pairs = len(rope.frequencies)
    return RopeStruct(
        (ctypes.c_double * pairs)(*rope.frequencies),
        pairs,
        rope.offset,
        rope.magnitude,
        int(rope.interleaved),
    )


def routing_struct(routing: Routing, experts: int) -> RoutingStruct:
    """The native form of a routing over `experts`. Raises `ValueError` when it cannot choose."""
    groups = max(1, routing.groups)
    reach = experts if groups == 1 else experts // groups * routing.top_groups
    if not 1 <= routing.top_k <= reach or experts % groups:
        raise ValueError(f"{routing} cannot choose from {experts} experts")
    if groups > 1 and not 1 <= routing.top_groups <= groups:
        raise ValueError(f"{routing} cannot choose its groups")
    return RoutingStruct(
        routing.top_k,
        groups,
        routing.top_groups,
        routing.scale,
        routing.floor,
        get_args(Gating).index(routing.gating),
        int(routing.normalise),
    )
