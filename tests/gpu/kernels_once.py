"""Kernels of one kind, each launched once and held against a reference: `python -m tests.gpu.kernels_once NAME`.

NAME is a quantised type, "attention", "latent", "recurrent" or "window". One that fails or crashes is told,
and where it can be the next one runs.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from tests.gpu.children import tell

Check = Callable[[], float]
"""The largest error, over the largest magnitude."""


def main(name: str) -> int:
    """1 where a check fails."""
    failed = 0
    for about, check, allowed in checks(name):
        try:
            found = check()
            good = found <= allowed
            tell({"name": about, "error": found, "allowed": allowed, "ok": good})
        except Exception as error:  # the boundary: the next kernel runs all the same
            traceback.print_exc()
            good = False
            tell({"name": about, "raised": f"{type(error).__name__}: {error}"[:500], "ok": False})
        failed += not good
    return 1 if failed else 0


def checks(name: str) -> Iterator[tuple[str, Check, float]]:
    """Names, checks and what they allow."""
    if name in ("attention", "latent", "window"):
        yield from _attention(name)
    elif name == "recurrent":
        yield from _recurrent()
    else:
        yield from _products(name)


def _products(name: str) -> Iterator[tuple[str, Check, float]]:
    import torch

    from kernels import ggml
    from kernels.gpu.moe import experts
    from kernels.gpu.quant import gemv, matmul
    from tests.kernels.gpu.gpu_cases import DEVICE, normal
    from tests.kernels.gpu.quantised_cases import random_tensor, repack

    def values(tensor: Any) -> Any:
        return torch.from_numpy(ggml.dequantise(tensor)).double().view(tensor.shape)

    dense = random_tensor(name, (300, 1024))

    def linear(n: int) -> Check:
        def check() -> float:
            x, weight = normal(n, n, 1024), repack(dense, DEVICE)
            if n <= gemv.GEMV_MAX_ROWS:
                (y,) = gemv.gemv(x, [weight])
            else:
                y = matmul.gemm(matmul.fp16_activations(x), weight)
            return off(y, x.cpu().double() @ values(dense).T)

        return check

    for n, allowed in ((1, 1e-2), (8, 1e-2), (16, 2e-3), (300, 2e-3)):
        yield f"{n} rows", linear(n), allowed

    def moe(n: int) -> Check:
        def check() -> float:
            shapes = ((4, 256, 512), (4, 256, 512), (4, 512, 256))
            stacks = [random_tensor(name, shape, seed=i) for i, shape in enumerate(shapes)]
            x, weights = normal(1, n, 512, scale=0.1), normal(2, n, 2).abs()
            ids = torch.tensor([[0, 3], [2, -1]] * ((n + 1) // 2))[:n].int().to(DEVICE)
            residual = torch.zeros(n, 512, device=DEVICE)
            gate, up, down = (repack(stack, DEVICE) for stack in stacks)
            experts.moe_add(x, ids, weights, (gate, up, down), residual)
            return off(residual, _moe(x, ids, weights, [values(stack) for stack in stacks]))

        return check

    yield "experts of a token", moe(1), 1e-2
    yield "experts of a prompt", moe(40), 1e-2


def _moe(x: Any, ids: Any, weights: Any, stacks: list[Any]) -> Any:
    """Experts in float64."""
    import torch

    gate, up, down = stacks
    x, weights = x.cpu().double(), weights.cpu().double()
    out = torch.zeros(len(x), down.shape[1], dtype=torch.float64)
    for row, chosen in enumerate(ids.cpu().tolist()):
        for choice, expert in enumerate(chosen):
            if expert >= 0:
                hidden = torch.nn.functional.silu(gate[expert] @ x[row]) * (up[expert] @ x[row])
                out[row] += weights[row, choice] * (down[expert] @ hidden)
    return out


def _attention(name: str) -> Iterator[tuple[str, Check, float]]:
    from tests.kernels.gpu import attention_cases

    def run(function: Callable[..., None], *arguments: Any, **named: Any) -> Check:
        def check() -> float:
            function(*arguments, **named)  # holds its own bounds
            return 0.0

        return check

    of, latent = attention_cases.run, attention_cases.run_latent
    for kind in ("f16", "q8") if name != "window" else ():
        if name == "latent":
            yield f"decode {kind}", run(latent, (70,), (1,), 16, 512, 64, kind=kind), 0.0
            yield f"prefill {kind}", run(latent, (70,), (33,), 16, 512, 64, kind=kind), 0.0
        else:
            for size in (64, 128, 256):
                yield f"decode {size} {kind}", run(of, (70,), (1,), 8, 2, size, kind=kind), 0.0
                yield f"prefill {size} {kind}", run(of, (70,), (33,), 8, 2, size, kind=kind), 0.0
    if name == "attention":
        yield "a new token", _pytest("tests/kernels/gpu/test_decode.py"), 0.0
    if name == "window":
        yield "pytest", _pytest("tests/kernels/gpu/test_gpu_window.py"), 0.0


def _recurrent() -> Iterator[tuple[str, Check, float]]:
    from tests.kernels.gpu import recurrent_cases

    def check(n: int) -> Check:
        def once() -> float:
            layers = recurrent_cases.Layers(recurrent_cases.NET)
            layers.check(layers.rows(n))
            return 0.0

        return once

    for n in (1, 2, 33):
        yield f"{n} tokens", check(n), 0.0


def _pytest(file: str) -> Check:
    def check() -> float:
        import pytest

        return float(pytest.main(["-q", "-x", file]))

    return check


def off(got: Any, wanted: Any) -> float:
    """Largest difference over the largest magnitude."""
    return float((got.cpu().double() - wanted).abs().max() / wanted.abs().max())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
