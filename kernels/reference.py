"""The op set in float32 torch: the oracle that every faster implementation is compared with.

Written to be read, not to be fast: weights are dequantised when they are used, the KV cache is
float32, and attention is the textbook formula over all positions at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor as X
from torch.nn import functional

from kernels import ggml
from kernels.ops import (
    Activation,
    Biases,
    Floats,
    Forward,
    Gating,
    Ints,
    Routing,
    Tensor,
)
from kernels.parameters import ALPHA, LIMIT
from kernels.reference_attention import Cache, ReferenceAttentionOps
from kernels.reference_recurrent import ReferenceRecurrentOps, Weight, rms_norm
from kernels.reference_rows import ReferenceRowOps

__all__ = ["Cache", "ReferenceOps", "Weight"]


class ReferenceOps(ReferenceAttentionOps, ReferenceRowOps, ReferenceRecurrentOps):
    """`kernels.ops.Ops` in float32 torch. `keep` trades memory for dequantising once."""

    name = "reference"

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep

    def matrix(self, tensor: Tensor) -> Weight:
        return Weight(tensor, {} if self._keep else None)

    def table(self, tensor: Tensor) -> Weight:
        return Weight(tensor, None)

    def repacks(self, tensor: Tensor) -> bool:
        return False

    def vector(self, tensor: Tensor) -> Weight:
        return Weight(tensor, {})

    def record(self, forward: Forward[X]) -> Forward[X]:
        return forward

    def embed(self, table: Weight, tokens: Ints, factor: float = 1.0) -> X:
        tensor = table.tensor
        row = tensor.type.row_bytes(tensor.cols)
        data = tensor.data.reshape(tensor.rows, row)[tokens].reshape(-1)
        rows = Tensor(tensor.name, tensor.type, (len(tokens), tensor.cols), data)
        return torch.from_numpy(ggml.dequantise(rows) * np.float32(factor))

    def set_hidden(self, rows: Floats) -> X:
        return torch.from_numpy(rows).clone()

    def last_row(self, x: X) -> X:
        return x[-1:]

    def from_numpy(self, x: Floats) -> X:
        return torch.from_numpy(x)

    def to_numpy(self, x: X) -> Floats:
        array: Floats = x.numpy()
        return array

    def norm_linear(
        self,
        x: X,
        norm: Weight | None,
        eps: float,
        weights: Sequence[Weight],
        biases: Sequence[Weight | None] | None = None,
    ) -> list[X]:
        normed = x if norm is None else rms_norm(x, norm.float(), eps)
        outs = [normed @ weight.float().T for weight in weights]
        for out, bias in zip(outs, biases or (), strict=bool(biases)):
            if bias is not None:
                out += bias.float()
        return outs

    def linear_add(self, x: X, weight: Weight, residual: X, bias: Weight | None = None) -> None:
        residual += x @ weight.float().T
        if bias is not None:
            residual += bias.float()

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
        normed = rms_norm(x, norm.float(), eps)
        logits = normed @ router.float().T
        if logit_bias is not None:
            logits = logits + logit_bias.float()
        scores = _SCORES[routing.gating](logits)
        biased = scores if bias is None else scores + bias.float()
        if routing.groups > 1:
            grouped = biased.view(len(x), routing.groups, -1)
            best = grouped.topk(2, dim=-1).values.sum(-1).topk(routing.top_groups, dim=-1).indices
            allowed = torch.zeros(len(x), routing.groups, dtype=torch.bool).scatter_(1, best, True)
            biased = grouped.masked_fill(~allowed[..., None], -torch.inf).flatten(1)
        ids = biased.topk(routing.top_k, dim=-1).indices
        weights = scores.gather(1, ids)
        if routing.gating == "softmax of the chosen":
            weights = weights.softmax(-1)
        if routing.normalise:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=routing.floor)
        weights = weights * routing.scale
        if scales is not None:
            weights = weights * scales.float()[ids]
        return normed, ids.to(torch.int32), weights

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
        for expert in sorted(set(ids.flatten().tolist()) - {-1}):
            token, choice = torch.where(ids == expert)
            added = [0.0] * 3 if biases is None else [bias.float(expert) for bias in biases]
            first = x[token] @ gate.float(expert).T + added[0]
            second = x[token] @ up.float(expert).T + added[1]
            out = _activate(activation, first, second) @ down.float(expert).T + added[2]
            residual.index_add_(0, token, out * weights[token, choice, None])

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
        hidden = _activate(activation, x @ gate.float().T, x @ up.float().T)
        out = hidden @ down.float().T
        if scaler is not None:
            out = out * (x @ scaler.float().view(-1, 1)).sigmoid()
        residual += out


_SCORES: dict[Gating, Callable[[X], X]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "softmax of the chosen": lambda logits: logits,
}


def _activate(activation: Activation, gate: X, up: X) -> X:
    if activation == "swiglu":
        return functional.silu(gate) * up
    if activation == "geglu":
        return functional.gelu(gate, approximate="tanh") * up
    gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
    return gate * (ALPHA * gate).sigmoid() * (up + 1)
