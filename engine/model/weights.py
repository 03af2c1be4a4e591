"""Weights of a file, handed to an op set tensor by tensor, with progress.

A file may hold MLA's up-projection as one matrix or as two; both become the two that the op set takes.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from engine.gguf.file import GGUFFile
from engine.spec.spec import MlaSpec
from kernels import ggml
from kernels.ops import Bytes, Floats, Ops, Tensor
from kernels.quants import BY_NAME
from kernels.recurrent import W

RowIndex = slice | npt.NDArray[np.int64]
"""Rows of a matrix, in order."""

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

PREFAULT = 64 << 20
"""Bytes read from disk between two reports."""


class WeightLoader(Generic[W]):
    """Makes the tensors of `file` ready for `ops`; bytes are read from disk as they are asked for."""

    def __init__(self, file: GGUFFile, ops: Ops[Any, W, Any], report: Report) -> None:
        self._file = file
        self._ops = ops
        self._progress = _Progress(sum(info.nbytes for info in file.tensors.values()), report)

    def on(self, ops: Ops[Any, W, Any]) -> WeightLoader[W]:
        """The same file for another op set, with one progress for both."""
        other = copy(self)
        other._ops = ops
        return other

    def has(self, name: str) -> bool:
        """Whether the file has this tensor."""
        return name in self._file.tensors

    def matrix(self, name: str) -> W:
        """A matrix, or a stack of them (experts, heads)."""
        tensor = self._read(name)
        weights = self._ops.matrix(tensor)
        if self._ops.repacks(tensor):
            self._file.release(name)  # so that the weights are not in memory twice
        return weights

    def table(self, name: str) -> W:
        """Rows for `embed`."""
        return self._ops.table(self._read(name))

    def vector(self, name: str, factor: float = 1.0) -> W:
        """A vector times `factor`: norm, bias."""
        tensor = self._read(name)
        if factor == 1.0:
            return self._ops.vector(tensor)
        return self._float_vector(name, ggml.dequantise(tensor) * np.float32(factor))

    def _float_vector(self, name: str, values: Floats) -> W:
        data = np.ascontiguousarray(values, np.float32)
        return self._ops.vector(Tensor(name, BY_NAME["F32"], data.shape, data.view(np.uint8)))

    def flat_vector(self, name: str) -> W:
        """A matrix's numbers one row after another, as a vector."""
        tensor = self._read(name)
        return self._ops.vector(
            Tensor(name, tensor.type, (tensor.rows * tensor.cols,), tensor.data)
        )

    def optional_vector(self, name: str) -> W | None:
        """A vector if the file has it."""
        return self.vector(name) if self.has(name) else None

    def expert_biases(self, name: str) -> W:
        """A vector for each expert, as a float32 stack of one row."""
        tensor = self._read(name)
        count, features = tensor.shape
        data = np.ascontiguousarray(ggml.dequantise(tensor), np.float32).view(np.uint8).reshape(-1)
        return self._ops.matrix(Tensor(name, BY_NAME["F32"], (count, 1, features), data))

    def rows(self, name: str, parts: Sequence[RowIndex]) -> list[W]:
        """A matrix cut into several by its rows, (count, rows, cols) in each of its stack; bits stay as they are."""
        tensor = self._read(name)
        *stack, rows, cols = tensor.shape
        bytes_ = tensor.data.reshape(*stack, rows, tensor.type.row_bytes(cols))
        out = []
        for number, index in enumerate(parts):
            data = np.ascontiguousarray(bytes_[..., index, :])
            shape = (*stack, data.shape[-2], cols)
            part = Tensor(f"{name}.{number}", tensor.type, shape, data.reshape(-1))
            out.append(self._ops.matrix(part))
        self._file.release(name)
        return out

    def vector_parts(self, name: str, parts: Sequence[RowIndex]) -> list[W | None]:
        """A vector cut as `rows` cuts its matrix; None for each where the file has no such vector."""
        if not self.has(name):
            return [None] * len(parts)
        tensor = self._read(name)
        values = ggml.dequantise(tensor)
        out: list[W | None] = []
        for number, index in enumerate(parts):
            out.append(self._float_vector(f"{name}.{number}", values[index]))
        return out

    def latent_projections(self, prefix: str, heads: int, mla: MlaSpec) -> tuple[W, W]:
        """MLA's k_b (heads, latent, nope) and v_b (heads, value, latent).

        New files hold both; old ones one `attn_kv_b` of (heads * (nope + value), latent), whose key
        half is transposed here. That half is kept in float16 (float32 when the file's type is
        float32 or bfloat16), since a transposed quantised block would have to be quantised again.
        """
        if mla.split:
            return self.matrix(prefix + "attn_k_b.weight"), self.matrix(prefix + "attn_v_b.weight")
        both = self._read(prefix + "attn_kv_b.weight")
        rows = both.data.reshape(heads, mla.nope + mla.value, both.type.row_bytes(both.cols))
        values = Tensor(
            prefix + "attn_v_b.weight",
            both.type,
            (heads, mla.value, mla.kv_lora),
            np.ascontiguousarray(rows[:, mla.nope :]).reshape(-1),
        )
        exact = both.type.name in {"F32", "BF16"}
        dense = ggml.dequantise(both).reshape(heads, mla.nope + mla.value, mla.kv_lora)
        keys = dense[:, : mla.nope].transpose(0, 2, 1).astype(np.float32 if exact else np.float16)
        transposed = Tensor(
            prefix + "attn_k_b.weight",
            BY_NAME["F32" if exact else "F16"],
            (heads, mla.kv_lora, mla.nope),
            np.ascontiguousarray(keys).view(np.uint8).reshape(-1),
        )
        return self._ops.matrix(transposed), self._ops.matrix(values)

    def _read(self, name: str) -> Tensor:
        tensor = self._file.tensor(name)
        for first in range(0, tensor.data.nbytes, PREFAULT):
            part = tensor.data[first : first + PREFAULT]
            _prefault(part)
            self._progress.add(part.nbytes)
        return tensor


class _Progress:
    """Bytes read so far. Tied weights are read twice, but never more than all."""

    def __init__(self, total: int, report: Report) -> None:
        self._done, self._total, self._report = 0, total, report

    def add(self, count: int) -> None:
        self._done += count
        self._report(min(self._done, self._total), self._total)


def _prefault(data: Bytes) -> None:
    """Bring a mapped range into memory: one byte of every page is enough."""
    int(data[:: mmap.PAGESIZE].max(initial=0))
