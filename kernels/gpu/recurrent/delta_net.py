"""A gated delta net over new tokens: the launches, chosen by their number."""

from __future__ import annotations

import torch
from torch import Tensor as X

from kernels.gpu.recurrent.chunks import delta_chunks
from kernels.gpu.recurrent.convolution import short_convolution
from kernels.gpu.recurrent.gates import gated_norm
from kernels.gpu.recurrent.state import GpuRecurrentState, check_net
from kernels.gpu.recurrent.steps import delta_steps
from kernels.gpu.sizes import RECURRENT_STEPS
from kernels.recurrent import DeltaNet, DeltaNetWeights


def delta_net(
    qkv: X,
    z: X,
    alpha: X,
    beta: X,
    weights: DeltaNetWeights[X],
    eps: float,
    net: DeltaNet,
    state: GpuRecurrentState,
    layer: int,
) -> X:
    """See `kernels.recurrent.RecurrentOps.delta_net`. Two launches for a few tokens, four for more.

    Rows may be strided, their features are contiguous. Nothing waits, and buffers are torch's own.
    """
    n, values, heads = len(qkv), net.values, net.value_heads
    check_net(net, state)
    for name, x, features in (
        ("qkv", qkv, net.conv_features),
        ("z", z, values),
        ("alpha", alpha, heads),
        ("beta", beta, heads),
    ):
        if n < 1 or x.shape != (n, features) or x.stride(1) != 1:
            raise ValueError(f"{name} is {tuple(x.shape)}, not ({n}, {features})")
    lengths = (net.conv_features * net.kernel, heads, heads, net.value)
    for vector, length in zip(weights, lengths, strict=True):
        if vector.shape != (length,):
            raise ValueError(f"a vector of shape {tuple(vector.shape)}, not ({length},)")
    mixed = torch.empty(n, net.conv_features, device=qkv.device)
    out = torch.empty(n, values, device=qkv.device)
    short_convolution(qkv, weights.conv, eps, net, state.conv[layer, 0], mixed)
    matrices = state.matrices[layer, 0]
    if n <= RECURRENT_STEPS:
        delta_steps(mixed, z, alpha, beta, weights, eps, net, matrices, out)
    else:
        delta_chunks(mixed, alpha, beta, weights, net, matrices, out)
        gated_norm(out, weights.norm, z, eps, net)
    return out
