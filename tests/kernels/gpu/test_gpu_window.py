"""Windows, rings and attention sinks in Triton, in float16 and in 8 bits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.gpu_ops import GpuOps
from kernels.ops import CacheKind, CacheShape, Floats
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal
from tests.kernels.window_cases import CASES, run, textbook

# Scores and weights are rounded to float16, and in 8 bits keys and values to one in 254.
TOLERANCE: dict[CacheKind, float] = {"f16": 3e-3, "q8": 3e-2}

# The interpreter says when a split holds nothing: the logarithm of 0 is meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@cache
def ops() -> GpuOps:
    return GpuOps(DEVICE)


@cache
def wanted(case: str) -> Floats:
    return textbook(CASES[case])


def on_device(x: Floats) -> Any:
    return torch.from_numpy(x).to(DEVICE)


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        *(
            (case, "f16")
            for case in ("one position", "a page's edge", "no whole pages", "no sinks")
        ),
        *(("no whole pages", "q8"), ("sinks without a window", "q8")),
    ],
)
def test_windows_and_sinks(case: str, kind: CacheKind) -> None:
    got = torch.cat(run(ops(), on_device, CASES[case], kind))
    assert error(got, torch.from_numpy(wanted(case))) < TOLERANCE[kind]


@pytest.mark.parametrize("splits", [3])
def test_a_window_in_several_splits(splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.gpu.attention.plan.SPLIT_POSITIONS", 64)
    device = GpuOps(DEVICE)
    device._processors = 8 * splits
    got = torch.cat(run(device, on_device, CASES["no whole pages"]))
    assert error(got, torch.from_numpy(wanted("no whole pages"))) < TOLERANCE["f16"]


def test_a_ring_that_is_too_short_is_refused() -> None:
    cache, pages = ops().kv_cache(CacheShape(1, 3, 16, 2, 16, 16, ring=2)), np.zeros(0, np.int32)
    q = normal(1, 20, 32)
    ops().attention(q, 2, 1.0, cache, 0, pages, 100, 13)
    for window in (14, 0, -1):
        with pytest.raises(ValueError, match="positions in"):
            ops().attention(q, 2, 1.0, cache, 0, pages, 100, window)
