"""Products with the types of ik_llama.cpp, which ggml cannot be asked about, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import ggml
from kernels.ops import Floats, Tensor
from kernels.quants import IK_TYPES
from tests.kernels.cpu_cases import (
    ISAS,
    cpu_ops,
    multiplied,
    noise,
    normal,
    relative_error,
    rounded_activations,
    tensor,
    unaligned,
)
from tests.support.ggml_products import ggml_products

NAMES = sorted(IK_TYPES)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_products_equal_the_formula_on_every_instruction_set(name: str, isa: str) -> None:
    ops, weights = cpu_ops(2, isa), tensor(normal(1, 37, 512), name)
    matrix = ops.matrix(unaligned(weights))
    rows = multiplied(weights)
    for n in (1, 4, 9):
        x = normal(n, n, 512)
        (got,) = ops.norm_linear(x, None, 1e-6, [matrix])
        exact = rounded_activations(x).astype(np.float64) @ rows.T
        size = np.abs(x).astype(np.float64) @ np.abs(rows).T
        assert (np.abs(got - exact) <= size * 3e-5).all()


@pytest.mark.parametrize("name", NAMES)
def test_rounding_costs_no_more_than_in_llama_cpps_products_of_a_neighbour(name: str) -> None:
    """The neighbours are IQ4_XS and Q4_K as ggml multiplies them, activations in its own 8 bits."""
    x = normal(2, 64, 1024)

    def error(got: Floats, weights: Tensor) -> float:
        return noise(got, x.astype(np.float64) @ multiplied(weights).T) ** 0.5

    neighbours = [tensor(normal(3, 64, 1024), kind) for kind in ("IQ4_XS", "Q4_K")]
    worst = max(error(ggml_products(x, weights), weights) for weights in neighbours)
    weights = tensor(normal(3, 64, 1024), name)
    (got,) = cpu_ops().norm_linear(x, None, 1e-6, [cpu_ops().matrix(weights)])
    assert error(got, weights) <= 1.05 * worst


@pytest.mark.parametrize("name", NAMES)
def test_one_token_and_many_agree(name: str) -> None:
    ops = cpu_ops()
    matrix = ops.matrix(tensor(normal(4, 70, 512), name))
    x = normal(5, 40, 512)
    (many,) = ops.norm_linear(x, None, 1e-6, [matrix])
    for t in (0, 39):
        (one,) = ops.norm_linear(x[t : t + 1], None, 1e-6, [matrix])
        assert relative_error(one, many[t : t + 1]) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_scales_of_any_size_stay_apart(name: str) -> None:
    """A row's own scale, or a block's, reaches no other row."""
    values = normal(6, 20, 512) * 10.0 ** np.arange(-3, 17)[:, None].clip(-3, 3).astype(np.float32)
    weights = tensor(values, name)
    x = normal(7, 6, 512)
    (got,) = cpu_ops().norm_linear(x, None, 1e-6, [cpu_ops().matrix(weights)])
    rounded = rounded_activations(x).astype(np.float64)
    for row, exact in enumerate(multiplied(weights)):
        assert noise(got[:, row], rounded @ exact) < 1e-9
    table = cpu_ops().table(weights)
    tokens = np.array([19, 0, 7], dtype=np.int32)
    np.testing.assert_array_equal(cpu_ops().embed(table, tokens), ggml.dequantise(weights)[tokens])
