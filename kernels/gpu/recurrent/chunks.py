"""The delta rule for a prompt, in chunks of tokens (Yang et al., 2024, arXiv:2406.06484 and 2412.06464).

With the rows q, k, v of a chunk's tokens, the rates b and the decays' logarithms g, the matrix S before the
chunk, and F[t, i] = exp(g[i+1] + ... + g[t]) for i <= t, else 0:

    A = b[t] * (k[t] . k[i]) * F[t, i]  below the diagonal
    U = (1 + A)^-1 diag(b) (V - diag(exp(g[0] + ... + g[t])) K S)
    out = diag(exp(g[0] + ... + g[t])) Q S + ((Q K^T) * F) U
    S = exp(sum of g) S + K^T diag(F[last]) U

`_factors` makes what does not depend on S, all chunks at once; `_chunks` goes from chunk to chunk.

Exponents are sums of numbers that are not above 0, never differences of sums: after a decay of e^-50 a
difference would have kept no digit of the small decays that follow.

Products are float32's own ("ieee", on the ordinary cores): a state is carried through a whole conversation, and
one product's TF32 (10 bits) would stay in it. Tensor cores reach float32 only by three products of TF32, and
consumer GPUs have the same peak for both. By arithmetic a prompt's other products take several times as long.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.recurrent.gates import key_head_of, log_decay, sigmoid
from kernels.gpu.sizes import RECURRENT_CHUNK as CHUNK
from kernels.recurrent import DeltaNet, DeltaNetWeights

VALUES = 32
"""Features of a value head a program."""
PIECE = 32
"""Features of a key head at a time. All of them at once, each in three parts, would outgrow the registers, so
the matrix stays in memory: the cache has it."""
PRECISION = "ieee"


def delta_chunks(
    mixed: X,
    alpha: X,
    beta: X,
    weights: DeltaNetWeights[X],
    net: DeltaNet,
    matrices: X,
    out: X,
) -> None:
    """The third step of `kernels.recurrent.RecurrentOps.delta_net`: out (n, values), contiguous.

    `mixed` is what `short_convolution` gives, `matrices` (value_heads, key, value) one slot of a layer.
    """
    n, heads = len(mixed), net.value_heads
    chunks = triton.cdiv(n, CHUNK)
    squares = torch.empty(heads, chunks, 2, CHUNK, CHUNK, device=mixed.device)
    falls = torch.empty(heads, chunks, 2, CHUNK, device=mixed.device)
    sizes = {
        "KEY_HEADS": net.key_heads,
        "VALUE_HEADS": heads,
        "KEY": net.key,
        "VALUE": net.value,
        "TILED": net.tiled,
        "CHUNK": CHUNK,
        "PIECE": PIECE,
        "PRECISION": PRECISION,
    }
    _factors[(chunks, heads)](
        mixed,
        alpha,
        beta,
        weights.a,
        weights.dt,
        squares,
        falls,
        n,
        alpha.stride(0),
        beta.stride(0),
        LEVELS=CHUNK.bit_length() - 1,
        **sizes,
        num_warps=4,
    )
    values = min(VALUES, max(16, triton.next_power_of_2(net.value)))
    _chunks[(heads, triton.cdiv(net.value, values))](
        mixed,
        squares,
        falls,
        matrices,
        out,
        n,
        VALUE_BLOCK=values,
        **sizes,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["n"])
def _factors(
    mixed: tl.tensor,
    alpha: tl.tensor,
    beta: tl.tensor,
    a: tl.tensor,
    dt: tl.tensor,
    squares: tl.tensor,
    falls: tl.tensor,
    n: tl.tensor,
    alpha_stride: tl.tensor,
    beta_stride: tl.tensor,
    LEVELS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    VALUE_HEADS: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    TILED: tl.constexpr,
    CHUNK: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    FEATURES: tl.constexpr = 2 * KEY_HEADS * KEY + VALUE_HEADS * VALUE
    chunk = tl.program_id(0)
    head = tl.program_id(1)
    key_head = key_head_of(head, KEY_HEADS, VALUE_HEADS, TILED)
    index = tl.arange(0, CHUNK)
    token = chunk * CHUNK + index
    real = token < n
    q_rows = mixed + token.to(tl.int64)[:, None] * FEATURES + key_head * KEY
    scores = tl.zeros([CHUNK, CHUNK], tl.float32)
    below = tl.zeros([CHUNK, CHUNK], tl.float32)
    for first in range(0, KEY, PIECE):
        d = first + tl.arange(0, PIECE)[None, :]
        inside = real[:, None] & (d < KEY)
        q = tl.load(q_rows + d, mask=inside, other=0.0)
        k = tl.load(q_rows + KEY_HEADS * KEY + d, mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), scores, input_precision=PRECISION)
        below = tl.dot(k, tl.trans(k), below, input_precision=PRECISION)
    x = tl.load(alpha + token.to(tl.int64) * alpha_stride + head, mask=real, other=0.0)
    g = tl.where(real, log_decay(x, tl.load(a + head), tl.load(dt + head)), 0.0)
    rate = sigmoid(tl.load(beta + token.to(tl.int64) * beta_stride + head, mask=real, other=0.0))
    rate = tl.where(real, rate, 0.0)

    r, c = index[:, None], index[None, :]
    exponents = tl.cumsum(tl.where(r > c, g[:, None], 0.0), axis=0)
    fall = tl.exp(exponents)
    scores = tl.where(r >= c, scores * fall, 0.0)
    below = tl.where(r > c, below * fall * rate[:, None], 0.0)
    # Inverses of the blocks on the diagonal, which are products of the rule's own steps and thus at most 1:
    # a block of twice the size is [[P, 0], [-R B P, R]] for the inverses P and R, and B of `below`.
    inverse = tl.where(r == c, 1.0, 0.0) - tl.where(r // 2 == c // 2, below, 0.0)
    for level in range(1, LEVELS):
        joins = (r >> (level + 1) == c >> (level + 1)) & (r >> level != c >> level)
        product = tl.dot(tl.where(joins, below, 0.0), inverse, input_precision=PRECISION)
        inverse -= tl.dot(inverse, product, input_precision=PRECISION)

    number = (head * tl.num_programs(0) + chunk).to(tl.int64)
    to_squares = squares + number * (2 * CHUNK * CHUNK) + r * CHUNK + c
    tl.store(to_squares, inverse * rate[None, :])
    tl.store(to_squares + CHUNK * CHUNK, scores)
    to_falls = falls + number * (2 * CHUNK) + index
    tl.store(to_falls, tl.exp(tl.cumsum(g, axis=0)))
    tl.store(to_falls + CHUNK, tl.sum(tl.where(r == CHUNK - 1, fall, 0.0), axis=0))


@triton.jit(do_not_specialize=["n"])
def _chunks(
    mixed: tl.tensor,
    squares: tl.tensor,
    falls: tl.tensor,
    matrices: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    KEY_HEADS: tl.constexpr,
    VALUE_HEADS: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    TILED: tl.constexpr,
    CHUNK: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
) -> None:
    FEATURES: tl.constexpr = 2 * KEY_HEADS * KEY + VALUE_HEADS * VALUE
    head = tl.program_id(0)
    key_head = key_head_of(head, KEY_HEADS, VALUE_HEADS, TILED)
    e = tl.program_id(1) * VALUE_BLOCK + tl.arange(0, VALUE_BLOCK)[None, :]
    index = tl.arange(0, CHUNK)
    square = index[:, None] * CHUNK + index[None, :]
    matrix = matrices + head * (KEY * VALUE) + e
    chunks = tl.cdiv(n, CHUNK)
    for chunk in range(0, chunks):
        token = chunk * CHUNK + index
        real = (token < n)[:, None]
        rows = mixed + token.to(tl.int64)[:, None] * FEATURES
        number = (head * chunks + chunk).to(tl.int64)
        from_falls = falls + number * (2 * CHUNK)
        since_begin = tl.load(from_falls + index)[:, None]
        until_end = tl.load(from_falls + CHUNK + index)[:, None]
        whole = tl.load(from_falls + CHUNK - 1)
        from_squares = squares + number * (2 * CHUNK * CHUNK) + square

        k_s = tl.zeros([CHUNK, VALUE_BLOCK], tl.float32)
        q_s = tl.zeros([CHUNK, VALUE_BLOCK], tl.float32)
        for first in range(0, KEY, PIECE):
            d = first + tl.arange(0, PIECE)
            in_rows = real & (d < KEY)[None, :]
            from_q = rows + key_head * KEY + d[None, :]
            q = tl.load(from_q, mask=in_rows, other=0.0)
            k = tl.load(from_q + KEY_HEADS * KEY, mask=in_rows, other=0.0)
            in_matrix = (d < KEY)[:, None] & (e < VALUE)
            s = tl.load(matrix + d[:, None] * VALUE, mask=in_matrix, other=0.0)
            k_s = tl.dot(k, s, k_s, input_precision=PRECISION)
            q_s = tl.dot(q, s, q_s, input_precision=PRECISION)
        from_v = rows + 2 * KEY_HEADS * KEY + head * VALUE + e
        v = tl.load(from_v, mask=real & (e < VALUE), other=0.0)
        inverse = tl.load(from_squares)
        update = tl.dot(inverse, v - since_begin * k_s, input_precision=PRECISION)
        scores = tl.load(from_squares + CHUNK * CHUNK)
        o = tl.dot(scores, update, since_begin * q_s, input_precision=PRECISION)
        to_out = out + (token.to(tl.int64) * VALUE_HEADS + head)[:, None] * VALUE + e
        tl.store(to_out, o, mask=real & (e < VALUE))
        update *= until_end
        tl.debug_barrier()  # all threads have read the matrix before one writes
        for first in range(0, KEY, PIECE):
            d = first + tl.arange(0, PIECE)
            in_rows = real & (d < KEY)[None, :]
            from_k = rows + (KEY_HEADS + key_head) * KEY + d[None, :]
            k = tl.load(from_k, mask=in_rows, other=0.0)
            in_matrix = (d < KEY)[:, None] & (e < VALUE)
            to_s = matrix + d[:, None] * VALUE
            s = tl.load(to_s, mask=in_matrix, other=0.0) * whole
            s = tl.dot(tl.trans(k), update, s, input_precision=PRECISION)
            tl.store(to_s, s, mask=in_matrix)
        tl.debug_barrier()  # and written, before one reads
