"""Where the GPU kernels' tests run, and random data for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from triton.runtime import interpreter

ON_GPU = os.environ.get("KTCHAT_GPU_TESTS") == "1" and torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
torch.set_num_threads(1)


def normal(seed: int, *shape: int, scale: float = 1.0) -> Any:
    """Normally distributed float32 of this shape, on the device under test."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return (values * scale).to(DEVICE)


def unset(*shape: int, dtype: torch.dtype = torch.float32) -> Any:
    """An output full of NaN, so that a feature that nobody wrote is seen."""
    return torch.full(shape, float("nan"), dtype=dtype, device=DEVICE)


def error(got: Any, wanted: Any) -> float:
    """Greatest difference, relative to the greatest wanted value."""
    got, wanted = got.detach().cpu().double(), wanted.detach().cpu().double()
    assert got.shape == wanted.shape
    assert torch.isfinite(got).all()
    return float((got - wanted).abs().max() / wanted.abs().max())


@contextmanager
def unchecked() -> Iterator[None]:
    """Inside, the interpreter does not check every sum and product for overflow, which takes half of its time: for
    whole models, whose kernels have tests of their own that do."""
    builder = interpreter.interpreter_builder
    before, builder.options = builder.options, interpreter.InterpreterOptions(sanitize_overflow=False)  # fmt: skip
    try:
        yield
    finally:
        builder.options = before
