"""Products with weights of every type: norm_linear, linear_add, embed, norm."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import ggml
from kernels.quants import BY_NAME, IK_TYPES
from tests.kernels.cpu_cases import (
    BLOCK_TYPES,
    FLOAT_TYPES,
    ISAS,
    REFERENCE,
    block_size,
    cpu_ops,
    multiplied,
    noise,
    normal,
    relative_error,
    rounded_activations,
    tensor,
    torch_copy,
    unaligned,
)
from tests.support.ggml_products import ggml_products

EPS = 1e-6
GGML_TYPES = tuple(sorted(set(BLOCK_TYPES) - IK_TYPES))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 33, 100])
@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_block_products_equal_the_formula_on_rounded_activations(kind: str, n: int) -> None:
    blocks = 1 if n % 2 else 2
    weights = tensor(normal(1, 37, blocks * block_size(kind)), kind)
    x = normal(2, n, weights.cols)
    (got,) = cpu_ops().norm_linear(x, None, EPS, [cpu_ops().matrix(unaligned(weights))])
    rows = multiplied(weights)
    exact = rounded_activations(x).astype(np.float64) @ rows.T
    size = np.abs(x).astype(np.float64) @ np.abs(rows).T
    assert (np.abs(got - exact) <= size * 3e-5).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", GGML_TYPES)
def test_every_instruction_set_multiplies_every_type(kind: str, isa: str) -> None:
    ops, weights = cpu_ops(2, isa), tensor(normal(1, 37, 512), kind)
    matrix = ops.matrix(unaligned(weights))
    rows = multiplied(weights)
    for n in (1, 4, 9):
        x = normal(n, n, 512)
        (got,) = ops.norm_linear(x, None, EPS, [matrix])
        exact = rounded_activations(x).astype(np.float64) @ rows.T
        size = np.abs(x).astype(np.float64) @ np.abs(rows).T
        assert (np.abs(got - exact) <= size * 3e-5).all()


@pytest.mark.parametrize("kind", GGML_TYPES)
def test_block_products_err_no_more_than_llama_cpps(kind: str) -> None:
    weights, x = tensor(normal(3, 64, 1024), kind), normal(4, 64, 1024)
    wanted = x.astype(np.float64) @ multiplied(weights).T
    (got,) = cpu_ops().norm_linear(x, None, EPS, [cpu_ops().matrix(weights)])
    theirs = noise(ggml_products(x, weights), wanted)
    assert noise(got, wanted) ** 0.5 <= 1.05 * theirs**0.5


def test_rows_of_a_table_are_read_and_not_multiplied() -> None:
    ops = cpu_ops()
    table = ops.table(tensor(normal(3, 16, 256), "Q4_K"))
    with pytest.raises(ValueError, match="tables"):
        ops.norm_linear(normal(4, 1, 256), None, EPS, [table])


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_block_products_are_near_float32(kind: str) -> None:
    weights = tensor(normal(3, 48, 512), kind)
    x = normal(4, 5, 512)
    (got,) = cpu_ops().norm_linear(x, None, EPS, [cpu_ops().matrix(weights)])
    wanted = x.astype(np.float64) @ ggml.dequantise(weights).astype(np.float64).T
    assert noise(got, wanted) < 1e-4


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", FLOAT_TYPES)
@pytest.mark.parametrize(
    ("n", "rows", "cols"),
    [(1, 1, 1), (1, 37, 96), (2, 5, 33), (3, 16, 80), (7, 64, 31), (9, 50, 257), (33, 20, 64)],
)
def test_float_products_keep_activations_in_float32(
    isa: str, kind: str, n: int, rows: int, cols: int
) -> None:
    ops = cpu_ops(2, isa)
    weights = tensor(normal(5, rows, cols), kind)
    x = normal(6, n, cols)
    (got,) = ops.norm_linear(x, None, EPS, [ops.matrix(unaligned(weights))])
    exact = x.astype(np.float64) @ ggml.dequantise(weights).astype(np.float64).T
    assert np.abs(got - exact).max() <= 1e-6 * cols**0.5 * max(1.0, np.abs(exact).max())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cols", [1, 7, 64, 129, 896, 5120])
def test_norm_is_exact_to_rounding(isa: str, cols: int) -> None:
    ops = cpu_ops(2, isa)
    x, weight = normal(7, 3, cols, scale=30.0), normal(8, cols)
    got = ops.norm(x, ops.vector(tensor(weight)), EPS)
    exact = x.astype(np.float64)
    exact = exact / np.sqrt(np.square(exact).mean(axis=1, keepdims=True) + EPS) * weight
    assert (np.abs(got - exact) <= 3e-7 * np.abs(exact)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 4, 40])
def test_norm_linear_shares_one_norm_over_weights_of_different_types(isa: str, n: int) -> None:
    ops = cpu_ops(2, isa)
    kinds = ("Q4_K", "Q6_K", "Q5_0", "F16", "Q4_1", "F32", "BF16")
    tensors = [tensor(normal(9 + i, 20 + 16 * i, 256), kind) for i, kind in enumerate(kinds)]
    biases = [tensor(normal(30 + i, 20 + 16 * i)) if i % 2 else None for i in range(len(kinds))]
    x, norm = normal(40, n, 256), tensor(normal(41, 256))
    got = ops.norm_linear(
        x,
        ops.vector(norm),
        EPS,
        [ops.matrix(weight) for weight in tensors],
        [None if bias is None else ops.vector(bias) for bias in biases],
    )
    wanted = REFERENCE.norm_linear(
        torch_copy(x),
        REFERENCE.vector(norm),
        EPS,
        [REFERENCE.matrix(weight) for weight in tensors],
        [None if bias is None else REFERENCE.vector(bias) for bias in biases],
    )
    assert len(got) == len(kinds)
    for kind, ours, reference in zip(kinds, got, wanted, strict=True):
        assert noise(ours, reference) < (1e-12 if kind in FLOAT_TYPES else 3e-4)


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("n", [1, 70])
def test_linear_add_adds_to_the_residual(kind: str, n: int) -> None:
    ops = cpu_ops()
    weights, x, residual = tensor(normal(50, 45, 256), kind), normal(51, n, 256), normal(52, n, 45)
    wanted = torch_copy(residual)
    REFERENCE.linear_add(torch_copy(x), REFERENCE.matrix(weights), wanted)
    ops.linear_add(x, ops.matrix(weights), residual)
    assert noise(residual, wanted) < 1e-4


@pytest.mark.parametrize("kind", (*FLOAT_TYPES, *BLOCK_TYPES))
def test_embed_dequantises_rows_exactly(kind: str) -> None:
    ops = cpu_ops()
    table = tensor(
        normal(60, 11, BY_NAME[kind].block * 2 + (3 if kind in FLOAT_TYPES else 0)), kind
    )
    tokens = np.array([10, 0, 3, 3, 7], dtype=np.int32)
    got = ops.embed(ops.table(unaligned(table)), tokens)
    np.testing.assert_array_equal(got, ggml.dequantise(table)[tokens])


@pytest.mark.parametrize("isa", ISAS)
def test_half_conversions_are_exact_for_every_value(isa: str) -> None:
    ops = cpu_ops(2, isa)
    halves = np.arange(65536, dtype=np.uint16)
    weights = tensor(np.zeros((1, 65536), np.float32), "F16")
    weights.data[:] = halves.view(np.uint8)
    got = ops.embed(ops.table(weights), np.zeros(1, np.int32))[0]
    np.testing.assert_array_equal(got, halves.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_one_token_and_many_agree(isa: str) -> None:
    ops = cpu_ops(2, isa)
    for kind in ("F16", "Q4_K"):
        weight = ops.matrix(tensor(normal(70, 130, 512), kind))
        x = normal(71, 40, 512)
        (many,) = ops.norm_linear(x, None, EPS, [weight])
        for t in (0, 17, 39):
            (one,) = ops.norm_linear(x[t : t + 1], None, EPS, [weight])
            assert relative_error(one, many[t : t + 1]) < 1e-6
