"""Launches of the products with quantised weights, for every type, at shapes as large models have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kernels.gpu.moe import experts as experts_of
from kernels.gpu.quant import gemv, matmul
from kernels.gpu.quant.formats import FORMATS
from kernels.gpu.quant.weight import PackedWeight
from kernels.quants import BY_NAME

EXPERTS, HIDDEN, INNER, TOP_K = 16, 2048, 768, 8
WIDE = 1024
"""Of a prompt's experts: for 768, gate and down would be two kernels, and "scattered rows" has those."""

OF_EVERY_TYPE = ("pack", "one row", "experts of a token")
FOR_PROMPTS = "16 rows", "1024 rows", "experts of a prompt", "gathered rows", "scattered rows"
FOR_FEW = "8 rows", "a head's row", "biased experts of a token"
"""Variants: they differ in what they read and write, not in how a type is decoded."""
WIDE_TOKEN, WIDE_HIDDEN = "a wide token", 16384
"""Rows that take several steps, so that there are loops to count: of types that read activations in 8 bits."""

TYPES = tuple(FORMATS)


def cases(name: str) -> dict[str, Callable[[], Any]]:
    """Every way in, for weights of this type."""
    kind = BY_NAME[name]
    x = torch.zeros(1024, HIDDEN)
    residual = torch.zeros(1024, HIDDEN)

    def dense() -> PackedWeight:
        return PackedWeight.empty(kind, (HIDDEN, HIDDEN))

    def stacks(inner: int = INNER) -> tuple[PackedWeight, PackedWeight, PackedWeight]:
        gate, up = (PackedWeight.empty(kind, (EXPERTS, inner, HIDDEN)) for _ in range(2))
        return gate, up, PackedWeight.empty(kind, (EXPERTS, HIDDEN, inner))

    def linear(n: int) -> None:
        if n <= gemv.GEMV_MAX_ROWS:
            gemv.gemv(x[:n], [dense()], residual[:n])
        else:
            matmul.gemm(matmul.fp16_activations(x[:n]), dense(), residual[:n])

    def experts(n: int, biased: bool = False) -> None:
        ids = torch.arange(TOP_K, dtype=torch.int32).repeat(n).view(n, TOP_K)
        rows = tuple(torch.zeros(EXPERTS, size) for size in (INNER, INNER, HIDDEN))
        weights, biases = torch.zeros(n, TOP_K), rows if biased else None
        of = stacks(INNER if n == 1 else WIDE)
        experts_of.moe_add(x[:n], ids, weights, of, residual[:n], biases, int(biased))

    def wide() -> None:
        x, out = torch.zeros(1, WIDE_HIDDEN), torch.zeros(1, WIDE_HIDDEN)
        gemv.gemv(x, [PackedWeight.empty(kind, (HIDDEN, WIDE_HIDDEN))])
        gate, up = (PackedWeight.empty(kind, (TOP_K, INNER, WIDE_HIDDEN)) for _ in range(2))
        down = PackedWeight.empty(kind, (TOP_K, HIDDEN, 8 * INNER))
        ids, weights = torch.zeros(1, TOP_K, dtype=torch.int32), torch.zeros(1, TOP_K)
        experts_of.expert_hidden(gemv.Rows(x), gate, up, ids.view(-1), down=gate)
        experts_of.down_add(torch.zeros(TOP_K, 8 * INNER), down, ids, weights, out[:, :HIDDEN])

    def groups() -> matmul.Groups:
        return matmul.groups(torch.arange(TOP_K, dtype=torch.int32).repeat(64), EXPERTS)

    def gathered() -> None:
        matmul.gathered_gemm(matmul.fp16_activations(x[:64]), stacks()[0], groups(), TOP_K)

    def scattered() -> None:
        hidden = matmul.fp16_activations(torch.zeros(64 * TOP_K, INNER))
        matmul.scattered_gemm(hidden, stacks()[2], groups(), torch.zeros(64 * TOP_K, HIDDEN))

    def pack() -> None:
        file = torch.zeros(3, INNER, kind.row_bytes(HIDDEN), dtype=torch.uint8)
        PackedWeight.empty(kind, (EXPERTS, INNER, HIDDEN)).store(file, 2)

    heads = torch.arange(EXPERTS, dtype=torch.int32)
    return {
        "pack": pack,
        "one row": lambda: linear(1),
        "8 rows": lambda: linear(8),
        WIDE_TOKEN: wide,
        "16 rows": lambda: linear(16),
        "1024 rows": lambda: linear(1024),
        "experts of a token": lambda: experts(1),
        "biased experts of a token": lambda: experts(1, True),
        "experts of a prompt": lambda: experts(64),
        "gathered rows": gathered,
        "scattered rows": scattered,
        "a head's row": lambda: gemv.expert_gemv(x[:EXPERTS], stacks()[0], heads),
    }
