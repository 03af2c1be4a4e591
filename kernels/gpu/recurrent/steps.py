"""The delta rule token by token, for one token or a few: a program a value head, its matrix in registers.

The matrix is read and written once; the program has all of a head's output, so it norms and gates it too.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.recurrent.gates import key_head_of, log_decay, sigmoid, silu
from kernels.recurrent import DeltaNet, DeltaNetWeights


def delta_steps(
    mixed: X,
    z: X,
    alpha: X,
    beta: X,
    weights: DeltaNetWeights[X],
    eps: float,
    net: DeltaNet,
    matrices: X,
    out: X,
) -> None:
    """As `kernels.recurrent.RecurrentOps.delta_net` from its third step on, out (n, values) contiguous.

    `mixed` is what `short_convolution` gives, `matrices` (value_heads, key, value) one slot of a layer.
    """
    size = triton.next_power_of_2(net.key), triton.next_power_of_2(net.value)
    _delta_steps[(net.value_heads,)](
        mixed,
        z,
        alpha,
        beta,
        weights.a,
        weights.dt,
        weights.norm,
        matrices,
        out,
        len(mixed),
        z.stride(0),
        alpha.stride(0),
        beta.stride(0),
        eps,
        KEY_HEADS=net.key_heads,
        VALUE_HEADS=net.value_heads,
        KEY=net.key,
        VALUE=net.value,
        TILED=net.tiled,
        KEY_BLOCK=size[0],
        VALUE_BLOCK=size[1],
        num_warps=max(1, min(16, size[0] * size[1] // 2048)),
    )


@triton.jit(do_not_specialize=["n"])
def _delta_steps(
    mixed: tl.tensor,
    z: tl.tensor,
    alpha: tl.tensor,
    beta: tl.tensor,
    a: tl.tensor,
    dt: tl.tensor,
    norm: tl.tensor,
    matrices: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    z_stride: tl.tensor,
    alpha_stride: tl.tensor,
    beta_stride: tl.tensor,
    eps: tl.tensor,
    KEY_HEADS: tl.constexpr,
    VALUE_HEADS: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    TILED: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
) -> None:
    FEATURES: tl.constexpr = 2 * KEY_HEADS * KEY + VALUE_HEADS * VALUE
    head = tl.program_id(0)
    key_head = key_head_of(head, KEY_HEADS, VALUE_HEADS, TILED)
    d = tl.arange(0, KEY_BLOCK)
    e = tl.arange(0, VALUE_BLOCK)
    in_key, in_value = d < KEY, e < VALUE
    matrix = matrices + head * (KEY * VALUE) + d[:, None] * VALUE + e[None, :]
    inside = in_key[:, None] & in_value[None, :]
    s = tl.load(matrix, mask=inside, other=0.0)
    fall, shift = tl.load(a + head), tl.load(dt + head)
    weight = tl.load(norm + e, mask=in_value, other=0.0)
    for t in range(0, n):
        row = mixed + t * FEATURES
        q = tl.load(row + key_head * KEY + d, mask=in_key, other=0.0)
        k = tl.load(row + (KEY_HEADS + key_head) * KEY + d, mask=in_key, other=0.0)
        v = tl.load(row + 2 * KEY_HEADS * KEY + head * VALUE + e, mask=in_value, other=0.0)
        gate = tl.load(z + t * z_stride + head * VALUE + e, mask=in_value, other=0.0)
        decay = tl.exp(log_decay(tl.load(alpha + t * alpha_stride + head), fall, shift))
        rate = sigmoid(tl.load(beta + t * beta_stride + head))
        s = s * decay
        error = v - tl.sum(k[:, None] * s, axis=0)
        s += k[:, None] * (rate * error)[None, :]
        o = tl.sum(q[:, None] * s, axis=0)
        scale = tl.rsqrt(tl.sum(o * o, axis=0) / VALUE + eps)
        to_out = out + (t * VALUE_HEADS + head) * VALUE + e
        tl.store(to_out, o * scale * weight * silu(gate), mask=in_value)
    tl.store(matrix, s, mask=inside)
