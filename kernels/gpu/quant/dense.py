"""Many rows of activations times matrices: on the tensor cores, but for matrices of float32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor as X

from kernels.gpu.quant import matmul
from kernels.gpu.quant.gemv import GEMV_MAX_ROWS, gemv
from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.sizes import BLOCK


def linears(x: X, weights: Sequence[PackedWeight], out: X | None = None) -> list[X]:
    """x (n, cols) times each weight, (n, rows), added to `out` where there is one.

    In float16, but for matrices of float32: routers are, and a choice of experts shall not hang on rounding.
    """
    exact = [weight.type.name == "F32" for weight in weights]
    x16 = None if all(exact) else matmul.fp16_activations(x)
    results = []
    for weight, in_float32 in zip(weights, exact, strict=True):
        if in_float32:
            product = x @ dense(weight).T
            results.append(product if out is None else out.add_(product))
        else:
            assert x16 is not None
            results.append(matmul.gemm(x16, weight, out))
    return results


def linear(x: X, weight: PackedWeight, out: X | None = None) -> X:
    """x (n, cols) @ W.T by whichever product suits n, added to `out` when given: (n, rows)."""
    if len(x) <= GEMV_MAX_ROWS:
        return gemv(x, [weight], out)[0]
    return linears(x, [weight], out)[0]


def dense(weight: PackedWeight) -> X:
    """A float32 matrix where it lies, (rows, cols): its one plane is the file's rows, filled up."""
    width = weight.blocks * BLOCK
    return weight.planes[0][: weight.rows * width].view(weight.rows, width)[:, : weight.cols]
