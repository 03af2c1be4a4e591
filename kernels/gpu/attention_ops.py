"""The attention half of `GpuOps`: rope, the paged float16 cache, grouped-query and latent attention.

Launches the kernels of `rope`, `attention` and `latent_attention`; knows their plans and the shapes of
the op set, not how anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor as X

from kernels.gpu import attention as grouped
from kernels.gpu import latent_attention as latent
from kernels.gpu import quantised
from kernels.gpu.attention_plan import AttentionPlan, Scratch, plan_attention
from kernels.gpu.batch import Batch
from kernels.gpu.inputs import Inputs, Table
from kernels.gpu.quantised_weight import PackedWeight
from kernels.gpu.rope import RopeTable, rope_table
from kernels.gpu.rope import latent_append as append_latent
from kernels.gpu.rope import rope_append as append_heads
from kernels.ops import CacheShape, Ints, Rope

Weight = PackedWeight | X | Table
"""A matrix (or a stack of them) in its GGUF type, a float32 vector, or an embedding."""


@dataclass(frozen=True, slots=True)
class GpuCache:
    """Keys (layers, pages, page_size, heads, key) and values (…, value), float16."""

    keys: X
    values: X

    @property
    def pages(self) -> int:
        return self.keys.shape[1]

    @property
    def page_size(self) -> int:
        return self.keys.shape[2]

    @property
    def positions(self) -> int:
        """Positions that one sequence can have."""
        return self.pages * self.page_size


class AttentionOps:
    """Attention on one device. Plans and their scratch are made once for each kind of launch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._inputs = Inputs(device)
        self._processors = 1
        if device.type == "cuda":
            self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._ropes: dict[Rope, RopeTable] = {}
        self._plans: dict[tuple[int, ...], tuple[AttentionPlan, Scratch]] = {}
        self._heads: dict[int, X] = {}

    def kv_cache(self, shape: CacheShape) -> GpuCache:
        size = (shape.layers, shape.pages, shape.page_size, shape.heads)
        keys, values = (
            torch.zeros(*size, features, dtype=torch.float16, device=self.device)
            for features in (shape.key, shape.value)
        )
        return GpuCache(keys, values)

    def copy_page(self, cache: GpuCache, source: int, target: int) -> None:
        cache.keys[:, target] = cache.keys[:, source]
        cache.values[:, target] = cache.values[:, source]

    def rope_append(
        self,
        q: X,
        k: X,
        v: X,
        norms: tuple[Weight, Weight] | None,
        eps: float,
        rope: Rope,
        cache: GpuCache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        """As the op set says, but k itself is left as it was: only its form in the cache is read."""
        n, (kv_heads, key) = len(q), cache.keys.shape[3:]
        queries = q.view(n, -1, key)
        turned = torch.empty_like(queries)
        append_heads(
            queries,
            k.view(n, kv_heads, key),
            v.view(n, kv_heads, -1),
            None if norms is None else (as_vector(norms[0]), as_vector(norms[1])),
            eps,
            self._rope(rope),
            self._place(cache, pages, start, n),
            cache.keys[layer],
            cache.values[layer],
            turned,
        )
        queries.copy_(turned)

    def attention(
        self, q: X, heads: int, scale: float, cache: GpuCache, layer: int, pages: Ints, start: int
    ) -> X:
        n, kv_heads, key, value = len(q), *cache.keys.shape[3:], cache.values.shape[4]
        plan, scratch = self._plan(False, n, heads, kv_heads, key, value, cache.positions)
        out = torch.empty(n, heads, value, device=self.device)
        batch = self._place(cache, pages, start, n)
        keys, values = cache.keys[layer], cache.values[layer]
        grouped.attention(q.view(n, heads, key), keys, values, batch, scale, plan, scratch, out)
        return out.view(n, heads * value)

    def latent_append(
        self,
        q: X,
        heads: int,
        kv: X,
        norm: Weight,
        eps: float,
        rope: Rope,
        cache: GpuCache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        n = len(q)
        tails = q.view(n, heads, -1)[..., rope.offset :]
        turned = torch.empty(tails.shape, device=self.device)
        batch = self._place(cache, pages, start, n)
        table = self._rope(rope)
        append_latent(tails, kv, as_vector(norm), eps, table, batch, cache.keys[layer], turned)
        tails.copy_(turned)

    def latent_attention(
        self,
        q: X,
        heads: int,
        scale: float,
        k_b: Weight,
        v_b: Weight,
        cache: GpuCache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> X:
        k_b, v_b = as_matrix(k_b), as_matrix(v_b)
        n, (features, nope) = len(q), k_b.shape[1:]
        tail = cache.keys.shape[4] - features
        plan, scratch = self._plan(True, n, heads, 1, features, tail, cache.positions)
        queries = q.view(n * heads, -1)
        absorbed = self._per_head(queries[:, :nope], k_b, n).view(n, heads, features)
        turned = queries.view(n, heads, -1)[..., nope:]
        mixed = torch.empty(n, heads, features, device=self.device)
        batch, rows = self._place(cache, pages, start, n), cache.keys[layer]
        latent.latent_attention(absorbed, turned, rows, batch, scale, plan, scratch, mixed)
        return self._per_head(mixed.view(n * heads, features), v_b, n).view(n, -1)

    def _per_head(self, x: X, weight: PackedWeight, n: int) -> X:
        """x (n * heads, cols), row t * heads + h times matrix h: (n * heads, rows)."""
        heads = weight.shape[0]
        if heads not in self._heads:
            self._heads[heads] = torch.arange(heads, dtype=torch.int32, device=self.device)
        ids = self._heads[heads].repeat(n)
        if n <= quantised.FEW:
            return quantised.expert_gemv(x, weight, ids)
        together = quantised.groups(ids, heads)
        return quantised.grouped_gemm(quantised.halves(x), weight, together)

    def _place(self, cache: GpuCache, pages: Ints, start: int, n: int) -> Batch:
        return self._inputs.place(cache.pages, cache.page_size, pages, start, n)

    def _rope(self, rope: Rope) -> RopeTable:
        if rope not in self._ropes:
            self._ropes[rope] = rope_table(rope, self.device)
        return self._ropes[rope]

    def _plan(
        self, mla: bool, n: int, heads: int, kv_heads: int, key: int, value: int, positions: int
    ) -> tuple[AttentionPlan, Scratch]:
        """The plan for n tokens, rounded up to a power of two: each compiles kernels of its own."""
        queries = triton.next_power_of_2(n)
        kind = (mla, queries, heads, kv_heads, key, value, positions)
        if kind not in self._plans:
            shape = (1, queries, heads)
            rest = (key, value, positions, self._processors)
            plan = (
                latent.plan_latent_attention(*shape, *rest)
                if mla
                else plan_attention(*shape, kv_heads, *rest)
            )
            self._plans[kind] = plan, plan.scratch(queries, self.device)
        return self._plans[kind]


def as_matrix(weight: Weight) -> PackedWeight:
    assert isinstance(weight, PackedWeight), "a matrix is made by `matrix`"
    return weight


def as_vector(weight: Weight) -> X:
    assert isinstance(weight, X), "a vector is made by `vector`"
    return weight
