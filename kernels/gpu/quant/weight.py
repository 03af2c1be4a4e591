"""Weights that stay in their GGUF type on a device, packed once as they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor as Buffer

from kernels.gpu.quant.codebooks import codebook
from kernels.gpu.quant.formats import FORMATS, Dot, Format
from kernels.gpu.quant.layout import plane_starts
from kernels.gpu.quant.packing import FileRows, pack
from kernels.gpu.sizes import BLOCK
from kernels.quants import QuantType


def packed_bytes(kind: QuantType, shape: tuple[int, ...]) -> int:
    """Bytes of a weight of this shape, (rows, cols) or (count, rows, cols), on the device."""
    count = shape[0] if len(shape) == 3 else 1
    return count * _starts(kind, shape)[-1]


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """Weights on a device. `data` is (count, bytes of a matrix), uint8; count is 1 for one matrix."""

    type: QuantType
    shape: tuple[int, ...]
    data: Buffer
    planes: tuple[Buffer, ...]
    """Typed views of `data`: the planes of matrix 0. Those of others lie whole matrices behind."""

    @classmethod
    def empty(
        cls, kind: QuantType, shape: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> PackedWeight:
        """Room for weights. Raises `ValueError` for a type or shape that no product reads."""
        if kind.name not in FORMATS:
            raise ValueError(f"no GPU product reads {kind.name}")
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"a weight is (rows, cols) or (count, rows, cols), not {shape}")
        count = shape[0] if len(shape) == 3 else 1
        size = _starts(kind, shape)[-1]
        return cls.over(kind, shape, torch.zeros(count, size, dtype=torch.uint8, device=device))

    @classmethod
    def over(cls, kind: QuantType, shape: tuple[int, ...], data: Buffer) -> PackedWeight:
        """The weight whose packed bytes are `data`."""
        starts = _starts(kind, shape)
        fields = FORMATS[kind.name].planes
        flat = data.reshape(-1)
        room = (len(data) - 1) * starts[-1]
        planes = tuple(
            flat[start : stop + room].view(field.dtype)
            for start, stop, field in zip(starts, starts[1:], fields, strict=False)
        )
        return cls(kind, shape, data, planes)

    @property
    def rows(self) -> int:
        """Rows of one matrix (outputs)."""
        return self.shape[-2]

    @property
    def cols(self) -> int:
        """Columns (inputs)."""
        return self.shape[-1]

    @property
    def blocks(self) -> int:
        """Blocks of 32 columns in a row; the last may be short where the type has no blocks."""
        return -(-self.cols // BLOCK)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.data.nbytes

    @property
    def format(self) -> Format:
        """How the type is packed and decoded."""
        return FORMATS[self.type.name]

    @property
    def dot(self) -> Dot | None:
        """What decodes it for products with activations in 8 bits, where its type has that."""
        return self.format.dot

    @property
    def table(self) -> Buffer | None:
        """The type's codebook on the device, where it has one."""
        name = self.format.codebook
        return None if name is None else codebook(name, self.data.device)

    def to(self, device: torch.device | str) -> PackedWeight:
        """The same on another device."""
        return PackedWeight.over(self.type, self.shape, self.data.to(device))

    def store(self, raw: Buffer, matrix: int = 0, row: int = 0) -> None:
        """Pack the same rows, from `row` on, of the matrices from `matrix` on.

        `raw` has their file bytes, (matrices, rows, bytes of a row), contiguous, on our device, which
        packs them.
        """
        matrices, rows, size = raw.shape
        target = self.data[matrix : matrix + matrices]
        if self.type.block == 1:
            # Float rows are filled up with zeros to whole blocks of 32.
            width = self.blocks * BLOCK * self.type.bytes
            filled = target[:, row * width : (row + rows) * width].view(matrices, rows, width)
            filled[..., :size].copy_(raw)
            filled[..., size:].zero_()
            return
        per_row = self.type.row_blocks(self.cols)
        file = FileRows(raw.reshape(matrices, -1), self.type.bytes, self.type.prefix, per_row)
        starts = _starts(self.type, self.shape)
        for start, plane in zip(starts, self.format.planes, strict=False):
            begin = start + row * per_row * (plane.stop - plane.start)
            end = begin + rows * per_row * (plane.stop - plane.start)
            pack(plane, file, target[:, begin:end])


def _starts(kind: QuantType, shape: tuple[int, ...]) -> tuple[int, ...]:
    rows, cols = shape[-2:]
    per_row = -(-cols // BLOCK) * BLOCK if kind.block == 1 else kind.row_blocks(cols)
    return plane_starts(FORMATS[kind.name].planes, rows * per_row)
