"""The feed-forward half of `GpuOps`: products, routers, routed and shared experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor as X

from kernels.device import StreamedLayer
from kernels.gpu import elementwise
from kernels.gpu.attention_ops import Weight, as_matrix, as_vector
from kernels.gpu.memory.read_ahead import Parts, ReadAhead
from kernels.gpu.moe import experts
from kernels.gpu.moe.router import Routed, Router, norm_route
from kernels.gpu.moe.routing import route as choose_experts
from kernels.gpu.moe.streaming import ExpertStream
from kernels.gpu.quant import gemv
from kernels.gpu.quant.dense import dense, linears
from kernels.gpu.quant.q8 import Q8, KnownQ8
from kernels.gpu.rows.ops import RowOps
from kernels.ops import ACTIVATIONS, Activation, Biases, Routing, Tensor
from kernels.sizes import PROMPT_CHUNK


class FeedForwardOps(RowOps):
    """The part of `kernels.device.DeviceOps` that multiplies by matrices.

    `known` has activations in 8 bits that norms and attention have left beside theirs, `ahead` what follows requests.
    """

    device: torch.device
    known: KnownQ8
    ahead: ReadAhead

    def __init__(self, stream: ExpertStream) -> None:
        self._stream = stream
        self.chosen: list[X] = []
        """What each router of the last pass chose, (1, top_k), where it was of one token. Kept alive: a captured pass
        writes them anew every time."""
        self._counters: X | None = None
        """Of programs that have ended (`memory.signals`): zeros between launches."""

    def linears(
        self, x: X, weights: Sequence[Weight], biases: Sequence[Weight | None] | None = None
    ) -> list[X]:
        """x (n, cols) times each weight, plus its bias: (n, rows) each."""
        packed = [as_matrix(weight) for weight in weights]
        self._note(x, weights)
        added = [None if b is None else as_vector(b) for b in biases or [None] * len(packed)]
        if len(x) <= gemv.GEMV_MAX_ROWS:
            return gemv.gemvs(self.rows_of(x), packed, added)
        outs = linears(x, packed)
        for out, bias in zip(outs, added, strict=True):
            if bias is not None:
                out += bias
        return outs

    def _note(self, x: X, weights: Sequence[Weight]) -> None:
        """What one token reads between two requests is known when it is read again."""
        if len(x) == 1:
            self.ahead.note([as_matrix(weight) for weight in weights])

    def rows_of(self, x: X) -> gemv.Rows:
        return gemv.Rows(x, self.known.get(x))

    def route(
        self,
        x: X,
        norm: Weight,
        eps: float,
        router: Weight,
        bias: Weight | None,
        routing: Routing,
        logit_bias: Weight | None = None,
        scales: Weight | None = None,
    ) -> tuple[X, X, X]:
        vectors = logit_bias, bias, scales
        if takes_one_launch(x, router):
            return self.route_in_one(x, norm, eps, router, vectors, routing)
        normed, ids, weights = _outputs(len(x), x.shape[1], routing.top_k, x.device)
        self.norm_into(normed, x, norm, eps)
        (logits,) = self.linears(normed, [router], [logit_bias])
        biases, factors = (None if one is None else as_vector(one) for one in (bias, scales))
        choose_experts(logits, biases, factors, routing, ids, weights)
        self._keep_choice(ids)
        return normed, ids, weights

    def route_in_one(
        self,
        x: X,
        norm: Weight,
        eps: float,
        router: Weight,
        vectors: tuple[Weight | None, Weight | None, Weight | None],
        routing: Routing,
        request: tuple[X, X | None] | None = None,
        ahead: Parts | None = None,
    ) -> tuple[X, X, X]:
        """The same for what `takes_one_launch`, with a request that it fills and what is fetched meanwhile
        (`router.norm_route`). `vectors` are the logits' bias, the choice's, and the weights' factors."""
        self._note(x, [router])
        normed, ids, weights = _outputs(len(x), x.shape[1], routing.top_k, x.device)
        matrix = dense(as_matrix(router))
        others = (None if one is None else as_vector(one) for one in vectors)
        logits = torch.empty(len(x), len(matrix), device=x.device)
        out = Routed(normed, logits, ids, weights, self.known.make(normed))
        if (
            self._counters is None
        ):  # made by the first token, op by op: nothing is made in a capture
            self._counters = torch.zeros(gemv.GEMV_MAX_ROWS, dtype=torch.int32, device=x.device)
        using = Router(as_vector(norm), eps, matrix, routing, *others)
        norm_route(x, using, out, self._counters, request, ahead)
        self._keep_choice(ids)
        return normed, ids, weights

    def _keep_choice(self, ids: X) -> None:
        if len(ids) == 1:
            self.chosen.append(ids)

    def gathered_choices(self) -> X | None:
        """What all routers of the last pass of one token chose, (routers, top_k); None: there are none."""
        return torch.cat(self.chosen) if self.chosen else None

    def moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: X,
        biases: Biases[Weight] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        self.resident_moe_add(x, ids, weights, None, gate, up, down, residual, biases, activation)

    def resident_moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        slots: X | None,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: X,
        biases: Biases[Weight] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        """See `kernels.device.DeviceOps`; without slots, ids are the stacks' own."""
        stacks = as_matrix(gate), as_matrix(up), as_matrix(down)
        rows = None
        if biases is not None:
            first, second, last = (experts.bias_rows(as_matrix(bias)) for bias in biases)
            rows = first, second, last
        kind = ACTIVATIONS.index(activation)
        experts.moe_add(self.rows_of(x), ids, weights, stacks, residual, rows, kind, slots)

    def stream(self, layers: Sequence[StreamedLayer], tokens: int = PROMPT_CHUNK) -> None:
        self._stream.begin(layers, tokens)

    def stream_moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
        residual: X,
        biases: tuple[Tensor, Tensor, Tensor] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        """Waits for the ids, and for blocks that are copied."""
        kind = ACTIVATIONS.index(activation)
        self._stream.moe_add(x, ids, weights, (gate, up, down), residual, biases, kind)

    def ffn_add(
        self,
        x: X,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: X,
        scaler: Weight | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        kind, (first, second, last) = (
            ACTIVATIONS.index(activation),
            map(as_matrix, (gate, up, down)),
        )
        hidden: X | Q8
        if len(x) == 1 and first.dot and second.dot:
            hidden = experts.expert_hidden(
                self.rows_of(x), first, second, None, activation=kind, down=last
            )
        else:
            hidden = experts.activated(self.linears(x, [first, second]), kind)
        self._note(x, [gate, up, down])
        out = residual if scaler is None else None
        (update,) = (
            gemv.gemv(gemv.Rows.of(hidden), [last], out)
            if isinstance(hidden, Q8) or len(x) <= gemv.GEMV_MAX_ROWS
            else linears(hidden, [last], out)
        )
        if scaler is not None:
            elementwise.gated_add(x, as_vector(scaler).view(-1), update, residual)


def takes_one_launch(x: X, router: Weight) -> bool:
    """Whether few rows meet a router of float32, as nearly all are."""
    return len(x) <= gemv.GEMV_MAX_ROWS and as_matrix(router).type.name == "F32"


def _outputs(n: int, hidden: int, top_k: int, device: torch.device) -> tuple[X, X, X]:
    """Room for the normed rows, ids and weights; of one token in one buffer, as a request has them."""
    if n > 1:
        ids = torch.empty(n, top_k, dtype=torch.int32, device=device)
        return torch.empty(n, hidden, device=device), ids, torch.empty(n, top_k, device=device)
    normed, weights, ids = torch.empty(1, hidden + 2 * top_k, device=device).split(
        [hidden, top_k, top_k], dim=1
    )
    return normed, ids.view(torch.int32), weights
