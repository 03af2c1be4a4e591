"""The table of GGUF tensor types: name, elements in a block, bytes of a block, bytes ahead of a row's blocks.

Numbers and layouts are those of ggml.h, of llama.cpp's first and then of ik_llama.cpp's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuantType:
    """One GGUF tensor type: `block` elements along a row share `bytes` bytes.

    A row begins with a scale of its own of `prefix` bytes, where its type has one.
    """

    id: int
    name: str
    block: int
    bytes: int
    prefix: int = 0

    def row_bytes(self, cols: int) -> int:
        """Bytes of a row of `cols` elements; `cols` must be a multiple of the block."""
        return self.prefix + self.row_blocks(cols) * self.bytes

    def row_blocks(self, cols: int) -> int:
        """Blocks of a row of `cols` elements; `cols` must be a multiple of the block."""
        if cols % self.block:
            raise ValueError(f"{self.name} rows hold multiples of {self.block}, not {cols}")
        return cols // self.block

    @property
    def bits(self) -> float:
        """Bits an element, without the row's own scale."""
        return 8 * self.bytes / self.block


def resident_bytes(kind: QuantType, rows: int, cols: int) -> int:
    """Bytes that `rows` rows of `cols` elements take in memory once the CPU kernels have them.

    The one place that says so: the memory plan counts with it. Weights stay as the file holds them.
    """
    return rows * kind.row_bytes(cols)


_TABLE = (
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
)

_IK_TABLE = (
    (133, "Q6_0", 32, 26),
    (137, "IQ2_K", 256, 76),
    (138, "IQ3_K", 256, 110),
    (139, "IQ4_K", 256, 144),
    (140, "IQ5_K", 256, 176),
    (141, "IQ6_K", 256, 212),
    (144, "IQ4_KS", 256, 136, 4),
    (145, "IQ2_KS", 256, 70, 2),
    (146, "IQ4_KSS", 256, 128, 4),
    (152, "IQ5_KS", 256, 168, 4),
    (153, "IQ2_KT", 256, 68, 4),
    (154, "IQ3_KT", 256, 100, 4),
    (155, "IQ4_KT", 256, 128, 4),
    (156, "IQ3_KS", 256, 102, 2),
    (157, "IQ2_KL", 256, 86, 2),
    (158, "IQ1_KT", 256, 56, 4),
)

TYPES: dict[int, QuantType] = {row[0]: QuantType(*row) for row in (*_TABLE, *_IK_TABLE)}
BY_NAME: dict[str, QuantType] = {kind.name: kind for kind in TYPES.values()}

IK_TYPES = frozenset(row[1] for row in _IK_TABLE)
"""Types that only ik_llama.cpp's ggml and our kernels read (`kernels.ik_types`)."""

MATRIX_TYPES = frozenset(
    kind.name
    for kind in TYPES.values()
    if kind.name not in {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}
)
"""Types that a matrix product can read; the rest are activations, integers or float64."""
