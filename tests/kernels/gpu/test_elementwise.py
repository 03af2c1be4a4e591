"""Norms, SwiGLU and the shared expert's gate, against float32 torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.elementwise import activate, gated_add, rms_norm, sigmoid_gate
from kernels.gpu.rows.kernels import norm_add, soft_cap
from kernels.ops import ACTIVATIONS, Tensor
from kernels.quants import BY_NAME
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal, unset

EPS = 1e-5
FLOAT = 2e-6
HALF = 6e-4
REFERENCE = ReferenceOps()
# The interpreter says when exp overflows or a logit is no number; both are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def weight(values: Any) -> Any:
    data = values.cpu().numpy()
    raw = data.reshape(-1).view(np.uint8)
    return REFERENCE.vector(Tensor("norm", BY_NAME["F32"], data.shape, raw))


@pytest.mark.parametrize("features", [1, 5, 64, 100, 2048])
def test_norm_equals_the_reference(features: int) -> None:
    x, norm, out = normal(1, 3, features, scale=4), normal(2, features), unset(3, features)
    rms_norm(x, norm, EPS, out)
    assert error(out, REFERENCE.norm(x.cpu(), weight(norm), EPS)) < FLOAT


def test_norm_adds_to_the_residual_first_and_takes_strided_rows() -> None:
    wide, norm = normal(1, 3, 200), normal(2, 96)
    x, residual, out = wide[:, 50:146], normal(3, 3, 96), unset(3, 96, dtype=torch.float16)
    total = (x + residual).cpu()
    rms_norm(x, norm, EPS, out, residual)
    assert torch.equal(residual.cpu(), total)
    assert error(out, REFERENCE.norm(total, weight(norm), EPS)) < HALF


def test_norm_of_zeros_is_zero_and_in_place_is_allowed() -> None:
    x = torch.zeros(2, 40, device=DEVICE)
    rms_norm(x, normal(1, 40), EPS, x)
    assert torch.equal(x.cpu(), torch.zeros(2, 40))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("features", [1, 72, 2816])
def test_a_norm_is_added_and_the_sum_scaled(features: int, scaled: bool) -> None:
    x, norm, residual = normal(1, 3, features, scale=4), normal(2, features), normal(3, 3, features)
    scale, wanted = normal(4, 1), residual.cpu().clone()
    norm_add(x, norm, EPS, residual, scale if scaled else None)
    REFERENCE.norm_add(x.cpu(), weight(norm), EPS, wanted, weight(scale) if scaled else None)
    assert error(residual, wanted) < FLOAT


def test_a_soft_cap_in_place() -> None:
    x = normal(1, 2, 1030, scale=40)
    x[1, :2] = torch.tensor([1e4, -1e4])
    wanted = 30 * torch.tanh(x.cpu() / 30)
    soft_cap(x, 30.0)
    assert error(x, wanted) < FLOAT


@pytest.mark.parametrize("features", [3, 1408])
def test_geglu_takes_strided_rows(features: int) -> None:
    both, out = normal(1, 4, 2 * features, scale=3), unset(4, features)
    gate, up = both[:, :features], both[:, features:]
    activate(gate, up, out, ACTIVATIONS.index("geglu"))
    wanted = torch.nn.functional.gelu(gate.cpu(), approximate="tanh") * up.cpu()
    assert error(out, wanted) < FLOAT


@pytest.mark.parametrize("features", [3, 1408])
def test_swiglu_of_the_halves_of_one_product(features: int) -> None:
    both, out = normal(1, 4, 2 * features, scale=30), unset(4, features)
    gate, up = both[:, :features], both[:, features:]
    activate(gate, up, out)
    wanted = torch.nn.functional.silu(gate.cpu()) * up.cpu()
    assert error(out, wanted) < FLOAT


def test_a_sigmoid_gates_in_place_and_takes_strided_rows() -> None:
    both = normal(1, 3, 2 * 1100, scale=30)
    x, gate = both[:, :1100], both[:, 1100:]
    wanted = x * gate.sigmoid()
    sigmoid_gate(x, gate)
    assert error(x, wanted) < FLOAT


def test_shared_expert_is_added_by_its_gate() -> None:
    x, scaler, update, residual = (
        normal(s, *n) for s, n in enumerate([(3, 72), (72,), (3, 72), (3, 72)])
    )
    wanted = residual + update * (x @ scaler.view(-1, 1)).sigmoid()
    gated_add(x, scaler, update, residual)
    assert error(residual, wanted) < FLOAT


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = normal(1, 2, 8)
    for bad in (normal(1, 2, 9), normal(1, 3, 8), normal(1, 8, 2).T):
        with pytest.raises(ValueError, match="rows of shape"):
            rms_norm(x, normal(1, 8), EPS, bad)
    with pytest.raises(ValueError, match="a vector"):
        rms_norm(x, normal(1, 7), EPS, x)
    with pytest.raises(ValueError, match="at most 32768"):
        activate(*(torch.empty(1, 32769) for _ in range(3)))
