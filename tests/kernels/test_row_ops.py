"""Row by row and feature by feature on the CPU, against float32."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.cpu_cases import (
    ISAS,
    REFERENCE,
    cpu_ops,
    normal,
    relative_error,
    tensor,
    torch_copy,
)

EPS = 1e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("n", "features"), [(1, 5), (3, 2816), (40, 64)])
def test_a_norm_is_added_and_the_sum_scaled(isa: str, scaled: bool, n: int, features: int) -> None:
    x, norm, residual = normal(1, n, features, scale=9), normal(2, features), normal(3, n, features)
    wanted, scale = torch_copy(residual), np.array([0.37], np.float32)
    for ops, values, total in (
        (cpu_ops(2, isa), x, residual),
        (REFERENCE, torch_copy(x), wanted),
    ):
        factor = ops.vector(tensor(scale)) if scaled else None
        ops.norm_add(values, ops.vector(tensor(norm)), EPS, total, factor)
    assert relative_error(residual, wanted) < 1e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("n", "features"), [(1, 3), (2, 40000)])
def test_a_soft_cap_of_any_size(isa: str, n: int, features: int) -> None:
    x = normal(1, n, features, scale=40)
    x[0, :3] = 0, 1e4, -1e4
    wanted = torch_copy(x)
    cpu_ops(2, isa).soft_cap(x, 30.0)
    REFERENCE.soft_cap(wanted, 30.0)
    assert relative_error(x, wanted) < 1e-6
    assert x[0, :3].tolist() == [0, 30, -30]


def test_zeros_are_like_what_they_are_made_for() -> None:
    zeros = cpu_ops().zeros(normal(1, 5, 40001))
    assert zeros.shape == (5, 40001)
    assert not zeros.any()


def test_embedding_rows_are_multiplied() -> None:
    ops, tokens = cpu_ops(), np.array([2, 0], np.int32)
    table = tensor(normal(1, 3, 64), "Q8_0")
    got = ops.embed(ops.table(table), tokens, 7.5)
    wanted = REFERENCE.embed(REFERENCE.table(table), tokens, 7.5)
    np.testing.assert_array_equal(got, wanted.numpy())


def test_shapes_that_do_not_fit_are_refused() -> None:
    ops, norm = cpu_ops(), cpu_ops().vector(tensor(normal(1, 8)))
    with pytest.raises(ValueError, match="wanted float32"):
        ops.norm_add(normal(1, 2, 8), norm, EPS, normal(1, 3, 8))
    with pytest.raises(ValueError, match="a vector of 1"):
        ops.norm_add(normal(1, 2, 8), norm, EPS, normal(1, 2, 8), norm)
