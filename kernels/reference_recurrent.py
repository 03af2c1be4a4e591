"""Recurrent layers in float32 torch, token by token as the papers write them; and what the oracle's ops share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor as X
from torch.nn import functional

from kernels import ggml
from kernels.host_bytes import joined, split
from kernels.ops import Bytes, Tensor
from kernels.recurrent import DeltaNet, DeltaNetWeights, StateShape


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the file; `keep` holds its float32 form once it was needed."""

    tensor: Tensor
    keep: dict[int, X] | None

    def float(self, index: int | None = None) -> X:
        """All of it, or one matrix of (count, rows, cols), in float32."""
        key = -1 if index is None else index
        if self.keep is not None and key in self.keep:
            return self.keep[key]
        tensor = self.tensor
        if index is not None:
            part = tensor.data.nbytes // tensor.shape[0]
            data = tensor.data[index * part : (index + 1) * part]
            tensor = Tensor(tensor.name, tensor.type, tensor.shape[1:], data)
        values = torch.from_numpy(ggml.dequantise(tensor).copy())
        if self.keep is not None:
            self.keep[key] = values
        return values


@dataclass(frozen=True, slots=True)
class RecurrentState:
    """The convolution's last tokens (layers, slots, kernel - 1, conv_features), the oldest first, and matrices
    (layers, slots, value_heads, key, value), float32."""

    conv: X
    matrices: X


class ReferenceRecurrentOps:
    """`kernels.recurrent.RecurrentOps` in float32 torch."""

    def recurrent_state(self, shape: StateShape) -> RecurrentState:
        net, size = shape.net, (shape.layers, shape.slots)
        return RecurrentState(
            torch.zeros(*size, net.kernel - 1, net.conv_features),
            torch.zeros(*size, net.value_heads, net.key, net.value),
        )

    def clear_state(self, state: RecurrentState) -> None:
        state.conv[:, 0] = 0
        state.matrices[:, 0] = 0

    def copy_state(self, state: RecurrentState, source: int, target: int) -> None:
        state.conv[:, target] = state.conv[:, source]
        state.matrices[:, target] = state.matrices[:, source]

    def read_state(self, state: RecurrentState, slot: int) -> Bytes:
        return joined([plane[:, slot].numpy() for plane in (state.conv, state.matrices)])

    def write_state(self, state: RecurrentState, slot: int, data: Bytes) -> None:
        split([plane[:, slot].numpy() for plane in (state.conv, state.matrices)], data)

    def delta_net(
        self,
        qkv: X,
        z: X,
        alpha: X,
        beta: X,
        weights: DeltaNetWeights[Weight],
        eps: float,
        net: DeltaNet,
        state: RecurrentState,
        layer: int,
    ) -> X:
        n, heads = len(qkv), net.value_heads
        seen = torch.cat([state.conv[layer, 0], qkv])
        state.conv[layer, 0] = seen[n:]
        taps = weights.conv.float().view(net.conv_features, net.kernel)
        mixed = functional.silu((seen.unfold(0, net.kernel, 1) * taps).sum(-1))
        keys = net.key_heads * net.key
        q, k, v = torch.split(mixed, [keys, keys, net.values], dim=-1)
        q = _heads_of_values(_unit(q.reshape(n, net.key_heads, net.key), eps), net) * net.key**-0.5
        k = _heads_of_values(_unit(k.reshape(n, net.key_heads, net.key), eps), net)
        v = v.reshape(n, heads, net.value)
        decay = (weights.a.float() * functional.softplus(alpha + weights.dt.float())).exp()
        rate = beta.sigmoid()
        s = state.matrices[layer, 0]
        out = torch.empty(n, heads, net.value)
        for t in range(n):
            s *= decay[t, :, None, None]
            error = v[t] - torch.einsum("hk,hkv->hv", k[t], s)
            s += torch.einsum("hk,hv->hkv", k[t], rate[t, :, None] * error)
            out[t] = torch.einsum("hk,hkv->hv", q[t], s)
        normed = rms_norm(out, weights.norm.float(), eps)
        return (normed * functional.silu(z.reshape(n, heads, net.value))).flatten(1)

    def sigmoid_gate(self, x: X, gate: X) -> None:
        x *= gate.sigmoid()


def _unit(x: X, eps: float) -> X:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps)


def _heads_of_values(x: X, net: DeltaNet) -> X:
    """Each value head's query or key: (n, key_heads, key) -> (n, value_heads, key)."""
    times = net.value_heads // net.key_heads
    return x.repeat(1, times, 1) if net.tiled else x.repeat_interleave(times, dim=1)


def rms_norm(x: X, weight: X, eps: float) -> X:
    """x / sqrt(mean(x²) + eps) * weight over the last axis (Zhang and Sennrich, 2019)."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight
