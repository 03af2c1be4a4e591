"""The attention half of `GpuOps`: RoPE, the paged KV cache, grouped-query and latent attention.

Chooses between flashinfer and the Triton kernels of `attention/`, and makes their plans.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor as X

from kernels.gpu import elementwise
from kernels.gpu.attention import grouped, latent
from kernels.gpu.attention.append import append_latent, rotate_and_append
from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.decode import NewToken, decode, decodes
from kernels.gpu.attention.kv_cache import GpuCache
from kernels.gpu.attention.online_softmax import leaves_q8
from kernels.gpu.attention.plan import (
    AttentionPlan,
    plan_attention,
    plan_latent_attention,
)
from kernels.gpu.attention.rope import RopeTable, rope_table, rotate
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.flashinfer.flash_ops import FlashOps
from kernels.gpu.graph.inputs import Inputs, Table
from kernels.gpu.memory.host_planes import read_planes, write_planes
from kernels.gpu.quant import gemv, matmul
from kernels.gpu.quant.q8 import KnownQ8
from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.sizes import bucket
from kernels.ops import Bytes, CacheShape, HeadNorms, Ints, Rope

Weight = PackedWeight | X | Table
"""A matrix (or a stack of them) in its GGUF type, a float32 vector, or an embedding."""


Prepared = tuple[AttentionPlan, Scratch]


class AttentionOps:
    """Attention on one device. Plans and their scratch are made once for each cache and kind of launch.

    flashinfer attends for prompts only: a token's plan costs the host more than the device gains.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.known = KnownQ8()
        self._inputs = Inputs(device)
        self._processors = 1
        if device.type == "cuda":
            self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._flash = FlashOps(device, self._processors)
        self._ropes: dict[Rope, RopeTable] = {}
        self._plans: WeakKeyDictionary[GpuCache, dict[tuple[int, ...], Prepared]]
        self._plans = WeakKeyDictionary()
        self._heads: dict[int, X] = {}
        self._new: tuple[NewToken, Batch] | None = None
        """A token that its attention appends."""

    def attention_kernel(self, shape: CacheShape, heads: int) -> str:
        """What attends for prompts with `heads` query heads over such a cache: flashinfer, or Triton and why."""
        reason = self._flash.obstacle(shape, heads)
        return f"Triton ({reason})" if reason else "flashinfer"

    def kv_cache(self, shape: CacheShape) -> GpuCache:
        return GpuCache.allocate(shape, self.device)

    def copy_page(self, cache: GpuCache, source: int, target: int) -> None:
        self.append_now()
        cache.copy_page(source, target)

    def read_page(self, cache: GpuCache, page: int) -> Bytes:
        self.append_now()
        return read_planes(cache.page(page))

    def write_page(self, cache: GpuCache, page: int, data: Bytes) -> None:
        self.append_now()
        write_planes(cache.page(page), data)

    def rope_append(
        self,
        q: X,
        k: X,
        v: X,
        norms: HeadNorms[Weight] | None,
        eps: float,
        rope: Rope,
        cache: GpuCache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        """As the op set says. Only k's form in the cache is rotated."""
        n, (kv_heads, key) = len(q), cache.keys.shape[3:]
        batch, table = self._kv_slots(cache, pages, start, n), self._rope(rope)
        q_norm, k_norm = (None, None) if norms is None else (as_vector(norms.q), as_vector(norms.k))
        values = norms is not None and norms.values
        if q_norm is not None and k_norm is not None and len(q_norm) == q.shape[1] != key:
            for x, norm in ((q, q_norm), (k, k_norm)):
                elementwise.rms_norm(x, norm, eps, out=x)
            q_norm = k_norm = None
        heads = q.view(n, -1, key), k.view(n, kv_heads, key), v.view(n, kv_heads, -1)
        rows = cache.key_rows(layer), cache.value_rows(layer)
        both = None if q_norm is None or k_norm is None else (q_norm, k_norm)
        self.append_now()
        self._new = NewToken(*heads, both, values, eps, table, *rows), batch
        if n > 1:
            self.append_now()

    def append_now(self) -> None:
        """A new token waits for its attention, whose launch appends it too; do it without."""
        if self._new is not None:
            token, batch = self._new
            self._new = None
            rest = token.norms, token.norm_values, token.eps, token.table
            rotate_and_append(token.q, token.k, token.v, *rest, batch, token.keys, token.values)

    def attention(
        self,
        q: X,
        heads: int,
        scale: float,
        cache: GpuCache,
        layer: int,
        pages: Ints,
        start: int,
        window: int = 0,
        sinks: Weight | None = None,
    ) -> X:
        n, kv_heads, key, value = len(q), *cache.keys.shape[3:], cache.values.shape[4]
        if cache.ring and n + window - 1 > cache.ring * cache.page_size:
            raise ValueError(f"{n} tokens that see {window} positions in {cache.shape}")
        queries = q.view(n, heads, key)
        flash = None
        if n > 1 and not window and sinks is None:
            flash = self._flash.grouped(cache, heads, scale)
        if flash is not None:
            self._inputs.renew(flash, pages, start, n)
            attn_out = flash.run(queries, cache.keys[layer], cache.values[layer], value=value)
            return attn_out.view(n, heads * value)
        plan, scratch = self._plan(cache, False, n, heads, kv_heads, key, value, window)
        out = torch.empty(n, heads, value, device=self.device)
        batch = self._kv_slots(cache, pages, start, n)
        rows = cache.key_rows(layer), cache.value_rows(layer)
        sink = None if sinks is None else as_vector(sinks)
        result = out.view(n, heads * value)
        few = n <= gemv.GEMV_MAX_ROWS and leaves_q8(plan)
        q8 = self.known.make(result) if few else None
        if self._new is not None and self._new[0].q.data_ptr() == q.data_ptr() and decodes(plan):
            token, self._new = self._new[0], None
            decode(token, batch, scale, plan, scratch, out, window, sink, q8)
        else:
            self.append_now()
            grouped.attention(queries, *rows, batch, scale, plan, scratch, out, window, sink, q8)
        return result

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
        batch, table = self._kv_slots(cache, pages, start, n), self._rope(rope)
        rotate(q.view(n, heads, -1)[..., rope.offset :], None, eps, table, 0, batch)
        append_latent(kv, as_vector(norm), eps, table, batch, cache.key_rows(layer))

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
        queries = q.view(n * heads, -1)
        absorbed = self._per_head(queries[:, :nope], k_b, n).view(n, heads, features)
        rotated = queries.view(n, heads, -1)[..., nope:]
        flash = self._flash.latent(cache, heads, features, scale) if n > 1 else None
        if flash is not None:
            self._inputs.renew(flash, pages, start, n)
            tails = rotated.half().contiguous()
            attn_out = flash.run(absorbed, tails, cache.keys[layer], value=features)
        else:
            tail = cache.keys.shape[4] - features
            plan, scratch = self._plan(cache, True, n, heads, 1, features, tail)
            attn_out = torch.empty(n, heads, features, device=self.device)
            batch, rows = self._kv_slots(cache, pages, start, n), cache.key_rows(layer)
            latent.latent_attention(absorbed, rotated, rows, batch, scale, plan, scratch, attn_out)
        return self._per_head(attn_out.view(n * heads, features), v_b, n).view(n, -1)

    def _per_head(self, x: X, weight: PackedWeight, n: int) -> X:
        """x (n * heads, cols), row t * heads + h times matrix h: (n * heads, rows)."""
        heads = weight.shape[0]
        if heads not in self._heads:
            self._heads[heads] = torch.arange(heads, dtype=torch.int32, device=self.device)
        ids = self._heads[heads].repeat(n)
        if n <= gemv.GEMV_MAX_ROWS:
            return gemv.expert_gemv(x, weight, ids)
        together = matmul.groups(ids, heads)
        return matmul.grouped_gemm(matmul.fp16_activations(x), weight, together)

    def _kv_slots(self, cache: GpuCache, pages: Ints, start: int, n: int) -> Batch:
        most = 0 if cache.ring else cache.pages
        return self._inputs.kv_slots(most, cache.page_size, pages, start, n)

    def _rope(self, rope: Rope) -> RopeTable:
        if rope not in self._ropes:
            self._ropes[rope] = rope_table(rope, self.device)
        return self._ropes[rope]

    def _plan(
        self,
        cache: GpuCache,
        mla: bool,
        n: int,
        heads: int,
        kv_heads: int,
        key: int,
        value: int,
        window: int = 0,
    ) -> Prepared:
        """The plan for n tokens, rounded up to a bucket: each compiles kernels of its own."""
        queries = bucket(n)
        plans = self._plans.setdefault(cache, {})
        kind = (mla, queries, heads, kv_heads, key, value, window)
        if kind not in plans:
            shape, q8 = (1, queries, heads), cache.key_scales is not None
            most = window + queries if window else cache.positions
            rest = (key, value, most, self._processors)
            plan = (
                plan_latent_attention(*shape, *rest, q8)
                if mla
                else plan_attention(*shape, kv_heads, *rest, q8)
            )
            plans[kind] = plan, Scratch.allocate(plan, queries, self.device)
        return plans[kind]


def as_matrix(weight: Weight) -> PackedWeight:
    assert isinstance(weight, PackedWeight), "a matrix is made by `matrix`"
    return weight


def as_vector(weight: Weight) -> X:
    assert isinstance(weight, X), "a vector is made by `vector`"
    return weight
