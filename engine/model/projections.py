"""A layer's input projections, however its file holds them: apart, fused, or interleaved by head.

Rows of a matrix are whole blocks in every GGUF type, so that a fused matrix is cut by its rows and no bit
is changed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.model.weights import RowIndex, WeightLoader
from engine.spec.spec import AttentionSpec, ModelSpec
from kernels.recurrent import DeltaNet, W

Rows = npt.NDArray[np.int64]


def attention_projections(
    load: WeightLoader[W], spec: ModelSpec, of: AttentionSpec, prefix: str
) -> tuple[list[W], list[W | None]]:
    """Queries, keys, values and, where attention is gated, gates; and their biases."""
    q = of.heads * of.head_dim * (2 if spec.attention_gate else 1)
    k, v = of.kv_heads * of.head_dim, of.kv_heads * of.value_dim
    query, gate = _gated(of) if spec.attention_gate else (np.arange(q), None)
    if spec.fused_qkv:
        parts: list[RowIndex] = [query, slice(q, q + k), slice(q + k, q + k + v)]
        parts += [gate] if gate is not None else []
        weights = load.rows(prefix + "attn_qkv.weight", parts)
        if spec.fused_qkv_bias or not spec.qkv_bias:
            return weights, load.vector_parts(prefix + "attn_qkv.bias", parts)
        return weights, [load.vector(f"{prefix}attn_{name}.bias") for name in "qkv"]
    names = "k" if of.keys_are_values else "kv"
    others = [load.matrix(f"{prefix}attn_{name}.weight") for name in names]
    other_biases = [load.optional_vector(f"{prefix}attn_{name}.bias") for name in names]
    if gate is None:
        first, first_bias = (
            [load.matrix(prefix + "attn_q.weight")],
            [load.optional_vector(prefix + "attn_q.bias")],
        )
    else:
        first = load.rows(prefix + "attn_q.weight", [query, gate])
        first_bias = load.vector_parts(prefix + "attn_q.bias", [query, gate])
    return (
        [first[0], *others, *first[1:]],
        [first_bias[0], *other_biases, *first_bias[1:]],
    )


def _gated(of: AttentionSpec) -> tuple[Rows, Rows]:
    """Rows of queries and of gates: each head's query, then its gate."""
    rows = np.arange(of.heads * 2 * of.head_dim).reshape(of.heads, 2, of.head_dim)
    return rows[:, 0].ravel(), rows[:, 1].ravel()


def delta_projections(load: WeightLoader[W], spec: ModelSpec, prefix: str) -> list[W]:
    """A delta net's qkv, z, alpha and beta, as `kernels.recurrent` takes them."""
    net = spec.delta
    assert net is not None
    if spec.delta_layout == "joined":
        qkv, z = load.rows(prefix + "ssm_in.weight", _joined_rows(net))
    else:
        qkv, z = (load.matrix(f"{prefix}{name}.weight") for name in ("attn_qkv", "attn_gate"))
    if spec.delta_layout == "split":
        return [qkv, z, *(load.matrix(f"{prefix}ssm_{name}.weight") for name in ("alpha", "beta"))]
    times = net.value_heads // net.key_heads
    both = np.arange(2 * net.value_heads).reshape(net.key_heads, 2, times)
    beta, alpha = load.rows(prefix + "ssm_ba.weight", [both[:, 0].ravel(), both[:, 1].ravel()])
    return [qkv, z, alpha, beta]


def _joined_rows(net: DeltaNet) -> list[RowIndex]:
    """Rows of qkv and of z in ssm_in: by key head its query, key, values and z."""
    values = net.values // net.key_heads
    width = 2 * net.key + 2 * values
    by_head = np.arange(net.key_heads * width).reshape(net.key_heads, width)
    ends = np.cumsum([net.key, net.key, values, values])[:-1]
    q, k, v, z = (part.ravel() for part in np.split(by_head, ends, axis=1))
    return [np.concatenate([q, k, v]), z]
