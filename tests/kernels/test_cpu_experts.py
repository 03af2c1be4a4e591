"""Router, routed experts and dense feed-forward against float32."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.ops import Ints, Routing, Tensor
from tests.kernels.cpu_cases import (
    BLOCK_TYPES,
    FLOAT_TYPES,
    ISAS,
    REFERENCE,
    block_size,
    cpu_ops,
    noise,
    normal,
    relative_error,
    tensor,
    torch_copy,
)

EPS = 1e-6


def three(
    kind: str, experts: int, hidden: int, width: int, down: str | None = None
) -> list[Tensor]:
    """Gate, up and down of `experts` experts, sized so that activations stay near 1."""
    return [
        tensor(normal(1, experts, width, hidden, scale=hidden**-0.5), kind),
        tensor(normal(2, experts, width, hidden, scale=hidden**-0.5), kind),
        tensor(normal(3, experts, hidden, width, scale=width**-0.5), down or kind),
    ]


def choices(n: int, experts: int, top_k: int) -> Ints:
    rng = np.random.default_rng(4)
    rows = [rng.permutation(experts)[:top_k] for _ in range(n)]
    return np.array(rows, dtype=np.int32)


def compare_moe(
    weights: list[Tensor], n: int, top_k: int, limit: float, isa: str | None = None
) -> None:
    ops = cpu_ops(2, isa)
    experts, hidden = weights[0].shape[0], weights[0].cols
    x, residual = normal(5, n, hidden), normal(6, n, hidden)
    ids, mix = choices(n, experts, top_k), np.abs(normal(7, n, top_k))
    wanted = torch_copy(residual)
    REFERENCE.moe_add(
        torch_copy(x),
        torch_copy(ids),
        torch_copy(mix),
        *(REFERENCE.matrix(weight) for weight in weights),
        wanted,
    )
    before = residual.copy()
    ops.moe_add(x, ids, mix, *(ops.matrix(weight) for weight in weights), residual)
    assert noise(residual - before, wanted.numpy() - before) < limit


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9, 33, 100])
@pytest.mark.parametrize(("kind", "down"), [("F32", "F32"), ("Q4_K", "Q6_K"), ("Q8_0", "Q5_0")])
def test_moe_of_any_number_of_tokens(kind: str, down: str, n: int) -> None:
    compare_moe(three(kind, 12, 256, 256, down), n, 4, 1e-11 if kind == "F32" else 5e-4)


@pytest.mark.parametrize("kind", (*FLOAT_TYPES, *BLOCK_TYPES))
def test_moe_in_every_type(kind: str) -> None:
    size = max(block_size(kind), 32)
    compare_moe(three(kind, 4, size, size), 3, 2, 1e-11 if kind in FLOAT_TYPES else 1e-3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("hidden", "width"), [(32, 32), (64, 96), (96, 160), (33, 17)])
@pytest.mark.parametrize("n", [1, 7, 20])
def test_moe_of_odd_sizes(isa: str, hidden: int, width: int, n: int) -> None:
    kind = "F16" if hidden % 32 else "Q8_0"
    compare_moe(three(kind, 5, hidden, width), n, 3, 5e-4, isa)


def test_moe_with_gate_and_up_of_different_types() -> None:
    weights = three("Q4_K", 6, 256, 64, "Q8_0")
    weights[1] = tensor(normal(2, 6, 64, 256, scale=1 / 16), "Q5_1")
    compare_moe(weights, 4, 3, 5e-4)


def test_moe_where_all_tokens_choose_the_same_experts() -> None:
    ops = cpu_ops()
    weights = three("F32", 8, 64, 64)
    x, residual = normal(5, 70, 64), np.zeros((70, 64), np.float32)
    ids, mix = np.tile(np.array([[6, 1]], np.int32), (70, 1)), np.ones((70, 2), np.float32)
    wanted = torch_copy(residual)
    REFERENCE.moe_add(
        *map(torch_copy, (x, ids, mix)), *(REFERENCE.matrix(w) for w in weights), wanted
    )
    ops.moe_add(x, ids, mix, *(ops.matrix(weight) for weight in weights), residual)
    assert relative_error(residual, wanted) < 1e-5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "n"), [("F32", 1), ("MXFP4", 1), ("MXFP4", 70), ("Q8_0", 9)])
def test_biases_and_the_clamped_activation(isa: str, kind: str, n: int) -> None:
    """A width of 352, as gpt-oss's 2880, is whole blocks of 32 but none of 256."""
    ops, weights = cpu_ops(3, isa), three(kind, 6, 96, 352)
    added = [tensor(normal(8 + i, 6, 1, part)) for i, part in enumerate((352, 352, 96))]
    x, residual = 4 * normal(5, n, 96), np.zeros((n, 96), np.float32)
    ids, mix = choices(n, 6, 3), np.abs(normal(7, n, 3))
    ids[0, 0] = -1
    wanted, outs = torch_copy(residual), (residual,)
    shared = [torch_copy(x), torch_copy(ids), torch_copy(mix)]
    for target, first, out in ((REFERENCE, shared, wanted), (ops, [x, ids, mix], outs[0])):
        stacks = [target.matrix(weight) for weight in weights]
        biases = tuple(target.matrix(bias) for bias in added)
        target.moe_add(*first, *stacks, out, biases, "clamped swiglu")
    assert noise(residual, wanted) < (1e-11 if kind == "F32" else 5e-4)


def test_biases_that_do_not_fit_are_refused() -> None:
    ops = cpu_ops()
    stacks = [ops.matrix(weight) for weight in three("Q8_0", 4, 32, 64)]
    x, ids, mix = normal(1, 1, 32), np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)

    def add(*sizes: int, kind: str = "F32") -> None:
        biases = tuple(ops.matrix(tensor(normal(2, 4, 1, size), kind)) for size in sizes)
        ops.moe_add(x, ids, mix, *stacks, np.zeros((1, 32), np.float32), biases)

    add(64, 64, 32)
    for sizes in ((32, 64, 32), (64, 64, 64)):
        with pytest.raises(ValueError, match="wanted 4 matrices"):
            add(*sizes)
    with pytest.raises(ValueError, match="do not fit"):
        add(64, 64, 32, kind="F16")


@pytest.mark.parametrize("isa", ISAS)
def test_networks_with_gelu(isa: str) -> None:
    weights, x = three("F32", 3, 64, 96), normal(5, 6, 64, scale=5)
    ids, mix = choices(6, 3, 2), np.abs(normal(7, 6, 2))
    sums = []
    for ops, convert in ((cpu_ops(2, isa), np.copy), (REFERENCE, torch_copy)):
        routed, dense = convert(np.zeros((6, 64), np.float32)), convert(normal(8, 6, 64))
        rows, chosen = convert(x), [convert(values) for values in (ids, mix)]
        ops.moe_add(
            rows, *chosen, *(ops.matrix(weight) for weight in weights), routed, activation="geglu"
        )
        one = [Tensor(w.name, w.type, w.shape[1:], w.data[: w.data.size // 3]) for w in weights]
        ops.ffn_add(rows, *(ops.matrix(weight) for weight in one), dense, activation="geglu")
        sums.append((routed, dense))
    for got, wanted in zip(*sums, strict=True):
        assert noise(got, wanted) < 1e-11


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", ["F32", "BF16", "Q4_K"])
@pytest.mark.parametrize("n", [1, 6, 65])
def test_dense_feed_forward(kind: str, n: int, scaled: bool) -> None:
    ops = cpu_ops()
    weights = [
        Tensor(weight.name, weight.type, weight.shape[1:], weight.data)
        for weight in three(kind, 1, 256, 512)
    ]
    x, residual, scaler = normal(5, n, 256), normal(6, n, 256), tensor(normal(7, 256, scale=0.1))
    wanted, before = torch_copy(residual), residual.copy()
    REFERENCE.ffn_add(
        torch_copy(x),
        *(REFERENCE.matrix(weight) for weight in weights),
        wanted,
        REFERENCE.vector(scaler) if scaled else None,
    )
    ops.ffn_add(
        x,
        *(ops.matrix(weight) for weight in weights),
        residual,
        ops.vector(scaler) if scaled else None,
    )
    assert noise(residual - before, wanted.numpy() - before) < (2e-3 if kind == "Q4_K" else 1e-11)


ROUTINGS = {
    "qwen3moe": Routing(8),
    "qwen2moe": Routing(4, normalise=False),
    "deepseek-v2-lite": Routing(6, normalise=False, scale=1.0),
    "deepseek-v2": Routing(6, normalise=False, scale=16.0, groups=8, top_groups=3),
    "deepseek-v3": Routing(8, "sigmoid", True, 2.5, groups=8, top_groups=4),
    "one": Routing(1),
    "all": Routing(32, "sigmoid"),
}


def compare_route(
    routing: Routing, n: int, kind: str, biased: bool, isa: str | None = None
) -> tuple[float, float]:
    """Share of tokens with the reference's experts, and the error of their weights."""
    norm, bias = tensor(normal(2, 64)), tensor(normal(3, 32, scale=0.2))
    router, x = tensor(normal(4, 32, 64, scale=0.2), kind), normal(1, n, 64)
    outs = []
    for ops, convert in ((cpu_ops(2, isa), np.copy), (REFERENCE, torch_copy)):
        weight, added = ops.vector(norm), ops.vector(bias) if biased else None
        scales = ops.vector(tensor(np.abs(normal(5, 32)))) if biased else None
        args = convert(x), weight, EPS, ops.matrix(router), added, routing
        outs.append(ops.route(*args, scales=scales))
    (normed, ids, weights), (normed_wanted, ids_wanted, wanted) = outs
    assert relative_error(normed, normed_wanted) < 1e-6
    same = (ids == ids_wanted.numpy()).all(axis=1)
    return float(same.mean()), relative_error(weights[same], wanted[same])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("routing", ROUTINGS.values(), ids=ROUTINGS)
def test_route(routing: Routing, biased: bool, isa: str) -> None:
    for n, kind in ((1, "F32"), (21, "F32"), (6, "F16"), (6, "BF16")):
        same, error = compare_route(routing, n, kind, biased, isa)
        assert same == 1
        assert error < 2e-6


@pytest.mark.parametrize("name", ["qwen3moe", "deepseek-v2", "deepseek-v3"])
def test_route_with_a_quantised_router(name: str) -> None:
    same, error = compare_route(ROUTINGS[name], 40, "Q8_0", False)
    assert same > 0.5  # rounded activations swap experts whose scores are all but equal
    assert error < 2e-2


def route_logits(
    logits: list[float], routing: Routing, bias: list[float] | None = None
) -> tuple[list[int], list[float]]:
    """Route one token whose logits are exactly these (they pass a diagonal router)."""
    ops, size = cpu_ops(), len(logits)
    x = np.array([logits], dtype=np.float32)
    scale = np.float32(1.0) / np.sqrt(np.square(x, dtype=np.float64).mean())
    router = tensor(np.diag(np.full(size, 1 / scale)).astype(np.float32))
    _, ids, weights = ops.route(
        x,
        ops.vector(tensor(np.ones(size, np.float32))),
        0.0,
        ops.matrix(router),
        None if bias is None else ops.vector(tensor(np.array(bias, np.float32))),
        routing,
    )
    return ids[0].tolist(), weights[0].tolist()


def test_ties_go_to_the_lower_index() -> None:
    assert route_logits([1, 2, 2, 1, 2, 1], Routing(4))[0] == [1, 2, 4, 0]


def test_group_ties_go_to_the_lower_group() -> None:
    routing = Routing(2, "sigmoid", groups=3, top_groups=2)
    assert route_logits([1, 2, 2, 1, 1, 2], routing)[0] == [1, 2]


def test_bias_chooses_experts_but_does_not_weigh_them() -> None:
    ids, weights = route_logits([0.5, 3, 1, -1], Routing(2, "sigmoid", False), [0, 0, 0, 2])
    assert ids == [3, 1]
    np.testing.assert_allclose(weights, [1 / (1 + np.exp(1)), 1 / (1 + np.exp(-3))], rtol=1e-6)


def test_groups_of_one_expert_are_experts() -> None:
    routing = Routing(2, "sigmoid", groups=4, top_groups=2)
    assert route_logits([1, 4, 3, 2], routing)[0] == [1, 2]


def test_tiny_weights_are_divided_by_the_floor() -> None:
    routing = Routing(1, "sigmoid", True, floor=0.5)
    _, weights = route_logits([-3.0, -4.0], routing)
    np.testing.assert_allclose(weights, [2 / (1 + np.exp(3))], rtol=1e-5)


def test_not_a_number_still_routes_to_existing_experts() -> None:
    ids, _ = route_logits([1, float("nan"), 2, 0], Routing(4))
    assert sorted(ids) == [0, 1, 2, 3]
