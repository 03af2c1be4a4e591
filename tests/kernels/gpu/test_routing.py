"""Expert choice against the reference, with ties, hostile logits and groups that are no power of two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.moe import router
from kernels.gpu.moe.routing import route
from kernels.ops import Routing, Tensor
from kernels.quants import BY_NAME
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU, error, normal, unset

REFERENCE = ReferenceOps()
# The interpreter says when exp overflows or a logit is no number; both are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def reference(logits: Any, bias: Any, routing: Routing, scales: Any = None) -> tuple[Any, Any]:
    """The reference's ids and weights: its router is the identity on rows whose norm is taken away."""
    experts = logits.shape[1]
    length = (logits**2).mean(-1, keepdim=True).sqrt()
    ids, weights = [], []
    for row, scale in zip(logits, length, strict=True):
        router = f32(torch.eye(experts) * scale)
        _, i, w = REFERENCE.route(
            row[None],
            vector(torch.ones(experts)),
            0.0,
            router,
            None if bias is None else vector(bias),
            routing,
            scales=None if scales is None else vector(scales),
        )
        ids.append(i[0])
        weights.append(w[0])
    return torch.stack(ids), torch.stack(weights)


def f32(values: Any) -> Any:
    data = values.numpy()
    return REFERENCE.matrix(
        Tensor("router", BY_NAME["F32"], data.shape, data.reshape(-1).view(np.uint8))
    )


def vector(values: Any) -> Any:
    data = values.numpy()
    return REFERENCE.vector(Tensor("bias", BY_NAME["F32"], data.shape, data.view(np.uint8)))


def choose(logits: Any, bias: Any, routing: Routing, scales: Any = None) -> tuple[Any, Any]:
    n = len(logits)
    ids = torch.full((n, routing.top_k), -1, dtype=torch.int32, device=DEVICE)
    weights = unset(n, routing.top_k)
    vectors = [None if one is None else one.to(DEVICE) for one in (bias, scales)]
    route(logits.to(DEVICE), *vectors, routing, ids, weights)
    return ids.cpu(), weights.cpu()


@pytest.mark.parametrize(("experts", "routing", "biased"), [
    (60, Routing(4, normalise=False), False),
    (128, Routing(8), False),
    (64, Routing(6, "sigmoid", scale=2.5), True),
    (160, Routing(6, normalise=False, scale=16.0, groups=8, top_groups=3), False),
    (256, Routing(8, "sigmoid", scale=2.5, groups=8, top_groups=4), True),
    (30, Routing(3, "sigmoid", groups=5, top_groups=2), True),
    (8, Routing(8), False),
])  # fmt: skip
def test_choice_equals_the_reference(experts: int, routing: Routing, biased: bool) -> None:
    logits = normal(experts, 5, experts, scale=2).cpu()
    bias, scales = (normal(s, experts).cpu() if biased else None for s in (1, 2))
    ids, weights = choose(logits, bias, routing, scales)
    wanted_ids, wanted = reference(logits, bias, routing, scales)
    assert torch.equal(ids, wanted_ids)
    assert error(weights, wanted) < 1e-5


@pytest.mark.parametrize("gating", ["softmax", "sigmoid"])
def test_equal_scores_go_to_the_lower_expert(gating: Any) -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0, 1.0]])
    ids, weights = choose(logits, None, Routing(4, gating))
    assert ids.tolist() == [[1, 2, 4, 0]]
    assert weights[0, 0] == weights[0, 1] == weights[0, 2] > weights[0, 3]


def test_equal_groups_go_to_the_lower_group() -> None:
    logits = torch.zeros(1, 12)
    routing = Routing(3, "sigmoid", groups=4, top_groups=2)
    assert choose(logits, None, routing)[0].tolist() == [[0, 1, 2]]
    bias = torch.tensor([0.0] * 3 + [1.0] * 9)
    assert choose(logits, bias, routing)[0].tolist() == [[3, 4, 5]]


def test_the_bias_chooses_but_does_not_weigh() -> None:
    bias = torch.tensor([0.0, 0.0, 0.0, 5.0])
    logits = torch.tensor([[2.0, 1.0, 0.0, -3.0]])
    ids, weights = choose(logits, bias, Routing(2, "sigmoid", normalise=False))
    assert ids.tolist() == [[3, 0]]
    assert torch.allclose(weights, torch.tensor([[-3.0, 2.0]]).sigmoid())


def test_tiny_weights_are_divided_by_the_floor() -> None:
    logits = torch.full((1, 4), -40.0)
    routing = Routing(2, "sigmoid")
    _, weights = choose(logits, None, routing)
    assert torch.allclose(weights, torch.full((1, 2), -40.0).sigmoid() / routing.floor)
    _, weights = choose(logits, None, replace(routing, floor=1e-20))
    assert torch.allclose(weights, torch.full((1, 2), 0.5))


@pytest.mark.parametrize("gating", ["softmax", "sigmoid"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_ids_stay_valid_and_distinct_when_logits_are_no_numbers(gating: Any, bad: float) -> None:
    logits = torch.full((2, 20), bad)
    logits[1, 5:9] = 1.0
    ids, _ = choose(logits, None, Routing(6, gating, groups=5, top_groups=3))
    for row in ids.tolist():
        assert len(set(row)) == 6
        assert all(0 <= expert < 20 for expert in row)


def test_impossible_routings_are_refused() -> None:
    ids, weights = torch.zeros(1, 4, dtype=torch.int32), torch.zeros(1, 4)
    for routing in (Routing(4, groups=3), Routing(4, groups=8), Routing(4, groups=4, top_groups=1)):
        with pytest.raises(ValueError, match="groups"):
            route(torch.zeros(1, 8), None, None, routing, ids, weights)
    with pytest.raises(ValueError, match="ids of"):
        route(torch.zeros(1, 8), None, None, Routing(3), ids, weights)


@pytest.mark.skipif(ON_GPU, reason="there a launch has many programs anyway")
def test_the_last_program_chooses_and_writes_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_ROWS", 4)
    hidden, experts, routing = 64, 10, Routing(3)
    x, norm = normal(1, 2, hidden), normal(2, hidden).abs()
    matrix, counters = normal(3, experts, hidden), torch.zeros(2, dtype=torch.int32)
    using = router.Router(norm, 1e-6, matrix, routing, logit_bias=normal(4, experts))
    for n in (2, 1):
        inputs, flag = unset(hidden + 6), torch.zeros(1, dtype=torch.int32)
        ids = torch.full((n, 3), -1, dtype=torch.int32)
        out = router.Routed(unset(n, hidden), unset(n, experts), ids, unset(n, 3))
        router.norm_route(x[:n], using, out, counters, (inputs, flag) if n == 1 else None)
        normed = x[:n] * torch.rsqrt(x[:n].pow(2).mean(-1, keepdim=True) + 1e-6) * norm
        wanted, chosen = (normed @ matrix.T + using.logit_bias).softmax(-1).topk(3)
        assert torch.equal(out.ids, chosen.int()) and error(out.normed, normed) < 1e-5
        assert error(out.weights, wanted / wanted.sum(-1, keepdim=True)) < 1e-5
        assert not counters.any()
    parts = inputs.split([hidden, 3, 3])
    assert flag.tolist() == [1] and torch.equal(parts[0], out.normed[0])
    assert torch.equal(parts[1], out.weights[0])
    assert torch.equal(parts[2].view(torch.int32), out.ids[0])
