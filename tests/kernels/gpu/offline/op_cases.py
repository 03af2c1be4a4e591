"""Launches of every kernel but the products with quantised weights, at shapes as large models have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from kernels.gpu.attention.append import append_heads, append_latent
from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.decode import NewToken, decode
from kernels.gpu.attention.grouped import attention
from kernels.gpu.attention.kv_cache import Rows
from kernels.gpu.attention.latent import latent_attention
from kernels.gpu.attention.plan import AttentionPlan, plan_attention, plan_latent_attention
from kernels.gpu.attention.rope import rope_table, rotate
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.elementwise import activate, gated_add, rms_norm, sigmoid_gate
from kernels.gpu.graph.answers import add
from kernels.gpu.moe.router import Routed, Router, norm_route
from kernels.gpu.moe.routing import route
from kernels.gpu.quant.q8 import Q8
from kernels.gpu.recurrent.delta_net import delta_net
from kernels.gpu.recurrent.state import GpuRecurrentState
from kernels.gpu.rows.kernels import add_rows, norm_add, soft_cap
from kernels.ops import ACTIVATIONS, Rope, Routing
from kernels.recurrent import DeltaNet, DeltaNetWeights, StateShape

PAGE = 64


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Any:
    return torch.zeros(*shape, dtype=dtype)


def one_batch(sequences: int) -> Batch:
    return Batch.allocate(sequences, 8, "cpu")


def cached(kind: str, heads: int, features: int) -> Rows:
    if kind == "f16":
        return Rows(rows(8, PAGE, heads, features, dtype=torch.float16))
    scales = rows(8, PAGE, heads, features // 32, dtype=torch.float16)
    return Rows(rows(8, PAGE, heads, features, dtype=torch.int8), scales)


def grouped(
    queries: int, heads: int, kv_heads: int, size: int, splits_for: int, kind: str = "f16"
) -> None:
    plan = plan_attention(1, queries, heads, kv_heads, size, size, splits_for, 128, kind == "q8")
    cache = cached(kind, kv_heads, size)
    q, out = rows(queries, heads, size), rows(queries, heads, size)
    attention(q, cache, cache, one_batch(1), 0.1, plan, scratch(plan, queries), out)


def decoding(heads: int, kv_heads: int, size: int, kind: str = "f16", window: int = 0) -> None:
    """A new token's, with norms of its heads or in a window with sinks."""
    most = 128 + 1 if window else 65536
    plan = plan_attention(1, 1, heads, kv_heads, size, size, most, 128, kind == "q8")
    cache = replace(cached(kind, kv_heads, size), ring=7 if window else 0)
    table = rope_table(Rope((1.0,) * (size // 2), False), "cpu")
    norms = None if window else (rows(size), rows(size))
    q, k, out = rows(1, heads, size), rows(1, kv_heads, size), rows(1, heads, size)
    token = NewToken(q, k, k, norms, False, 1e-6, table, cache, cache)
    sinks = rows(heads) if window else None
    decode(token, one_batch(1), 0.1, plan, scratch(plan, 1), out, window, sinks)


def windowed(queries: int, kind: str = "f16") -> None:
    """gpt-oss's heads over a ring, with sinks."""
    plan = plan_attention(1, queries, 64, 8, 64, 64, 128 + queries, 128, kind == "q8")
    cache = replace(cached(kind, 8, 64), ring=7)
    q, out, batch = rows(queries, 64, 64), rows(queries, 64, 64), one_batch(1)
    table = rope_table(Rope((1.0,) * 32, False), "cpu")
    append_heads(q[:, :8], q[:, :8], None, False, 1e-6, table, batch, cache, cache)
    attention(q, cache, cache, batch, 0.1, plan, scratch(plan, queries), out, 128, rows(64))


def latent(queries: int, heads: int, kind: str = "f16") -> None:
    plan = plan_latent_attention(1, queries, heads, 512, 64, 4096, 128, kind == "q8")
    cache = cached(kind, 1, 576)
    q, tail = rows(queries, heads, 512), rows(queries, heads, 64)
    latent_attention(q, tail, cache, one_batch(1), 0.1, plan, scratch(plan, queries), q.clone())


def scratch(plan: AttentionPlan, tokens: int) -> Any:
    return Scratch.allocate(plan, tokens, "cpu")


def appends(interleaved: bool, kind: str = "f16") -> None:
    q, k, norm, batch = rows(3, 32, 128), rows(3, 4, 128), rows(128), one_batch(2)
    table = rope_table(Rope((1.0,) * 64, interleaved), "cpu")
    rotate(q, norm, 1e-6, table, 0, batch)
    append_heads(k, k, norm, True, 1e-6, table, batch, cached(kind, 4, 128), cached(kind, 4, 128))
    table = rope_table(Rope((1.0,) * 32, interleaved), "cpu")
    append_latent(rows(3, 576), rows(512), 1e-6, table, batch, cached(kind, 1, 576))


def elementwise() -> None:
    x, w = rows(2, 2048), rows(2048)
    rms_norm(x, w, 1e-6, x.clone(), x.clone())
    for number in range(len(ACTIVATIONS)):
        activate(x, x, x.clone(), number)
    ids = rows(2, dtype=torch.int32)
    activate(x, x, x.clone(), 1, ids, (rows(4, 2048), rows(4, 2048)))
    add_rows(x, rows(4, 2048), ids)
    gated_add(x, w, x, x.clone())
    sigmoid_gate(x, x.clone())
    norm_add(x, w, 1e-6, x.clone(), rows(1))
    soft_cap(x, 30.0)
    add(x, x.clone(), rows(1, dtype=torch.int32))
    flag = rows(1, dtype=torch.int32)
    rms_norm(x[:1], w, 1e-6, x[1:], x[:1].clone(), Q8.empty(1, 2048, x.device), flag)


def routes(experts: int, routing: Routing, biased: bool) -> None:
    """From logits; and with the norm and the router before, of several tokens, and of one with a request."""
    top = routing.top_k
    bias = rows(experts) if biased else None
    ids, weights = rows(2, top, dtype=torch.int32), rows(2, top)
    route(rows(2, experts), bias, bias, routing, ids, weights)
    router = Router(rows(2048), 1e-6, rows(experts, 2048), routing, bias, bias, bias)
    flag, inputs = rows(1, dtype=torch.int32), rows(2048 + 2 * top)
    ahead = tuple((rows(1, 4096, dtype=torch.uint8), 32) for _ in range(5))
    for n, request in ((2, None), (1, (inputs, flag))):
        q8 = Q8.empty(n, 2048, torch.device("cpu"))
        out = Routed(rows(n, 2048), rows(n, experts), ids[:n], weights[:n], q8)
        norm_route(
            rows(n, 2048), router, out, rows(2, dtype=torch.int32), request, request and ahead
        )


def recurrent(tokens: int, key: int = 128, value: int = 128, tiled: bool = False) -> None:
    net = DeltaNet(16, 32, key, value, 4, tiled)
    lengths = net.conv_features * net.kernel, net.value_heads, net.value_heads, net.value
    sizes = [net.conv_features, net.values, net.value_heads, net.value_heads]
    inputs = torch.split(rows(tokens, sum(sizes)), sizes, dim=1)
    state = GpuRecurrentState.allocate(StateShape(1, 1, net), "cpu")
    delta_net(*inputs, DeltaNetWeights(*(rows(n) for n in lengths)), 1e-6, net, state, 0)


CASES: dict[str, Callable[[], None]] = {
    "elementwise": elementwise,
    "append, fp16": lambda: appends(False),
    "append, interleaved": lambda: appends(True),
    "append, q8": lambda: appends(False, "q8"),
    "route, softmax": lambda: routes(128, Routing(8), False),
    "route, of the chosen": lambda: routes(32, Routing(4, "softmax of the chosen"), False),
    "route, groups": lambda: routes(256, Routing(8, "sigmoid", groups=8, top_groups=4), True),
    "a new token, 8 x 128": lambda: decoding(32, 4, 128),
    "a new token, 8 x 128, q8": lambda: decoding(32, 4, 128, "q8"),
    "a new token, 4 x 256": lambda: decoding(8, 2, 256),
    "a new token, 8 x 512, q8": lambda: decoding(16, 2, 512, "q8"),
    "a new token, window": lambda: decoding(64, 8, 64, window=128),
    "decode, 8 x 128": lambda: grouped(1, 32, 4, 128, 65536),
    "decode, 5 x 80": lambda: grouped(1, 10, 2, 80, 65536),
    "prefill, 7 x 128": lambda: grouped(512, 28, 4, 128, 4096),
    "prefill, 2 x 256": lambda: grouped(512, 8, 4, 256, 4096),
    "window, decode": lambda: windowed(1),
    "window, prefill": lambda: windowed(512),
    "window, decode, q8": lambda: windowed(1, "q8"),
    "window, prefill, q8": lambda: windowed(512, "q8"),
    "decode, 8 x 512": lambda: grouped(1, 16, 2, 512, 65536),
    "prefill, 8 x 512": lambda: grouped(512, 16, 2, 512, 4096),
    "latent decode, 16": lambda: latent(1, 16),
    "latent prefill, 128": lambda: latent(64, 128),
    "decode, 8 x 128, q8": lambda: grouped(1, 32, 4, 128, 65536, "q8"),
    "decode, 5 x 96, q8": lambda: grouped(1, 10, 2, 96, 65536, "q8"),
    "decode, 4 x 256, q8": lambda: grouped(1, 8, 2, 256, 65536, "q8"),
    "prefill, 7 x 128, q8": lambda: grouped(512, 28, 4, 128, 4096, "q8"),
    "prefill, 2 x 256, q8": lambda: grouped(512, 8, 4, 256, 4096, "q8"),
    "decode, 8 x 512, q8": lambda: grouped(1, 16, 2, 512, 65536, "q8"),
    "prefill, 8 x 512, q8": lambda: grouped(512, 16, 2, 512, 4096, "q8"),
    "latent decode, 16, q8": lambda: latent(1, 16, "q8"),
    "latent prefill, 128, q8": lambda: latent(64, 128, "q8"),
    "recurrent, a token": lambda: recurrent(1),
    "recurrent, a few tokens": lambda: recurrent(8),
    "recurrent, a prompt": lambda: recurrent(512),
    "recurrent, two tokens": lambda: recurrent(2),
    "recurrent, nine tokens": lambda: recurrent(9),
    "recurrent, tiled": lambda: recurrent(512, tiled=True),
    "recurrent, 96 and 64": lambda: recurrent(512, 96, 64),
}

AS_OTHERS = "recurrent, two tokens", "recurrent, nine tokens"
"""Those that launch kernels of others, which a test holds: they are not compiled again."""
