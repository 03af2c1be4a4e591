"""flashinfer's three wrappers on the CPU: what 0.6's do with their buffers, and attention in float32.

Strict where flashinfer is (lengths of buffers, dtypes, a plan before a run, none while capturing) and
where it corrupts memory instead (MLA checks no length itself). `Log` counts what was called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


@dataclass
class Log:
    """Calls in their order: (name, positions planned for) and (name, tokens)."""

    calls: list[tuple[str, int]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    capturing: Callable[[], bool] = lambda: False

    def of(self, name: str) -> list[int]:
        return [number for called, number in self.calls if called == name]

    def plan(self, name: str, positions: int) -> None:
        assert not self.capturing(), "a plan copies from the host"
        self.calls.append((name, positions))


def attend(q: Any, k: Any, v: Any, scale: float) -> Any:
    """q (n, heads, key) are the last of the positions of k and v (length, kv_heads, …)."""
    group, past = q.shape[1] // k.shape[1], len(k) - len(q)
    q, k, v = (x.float().transpose(0, 1) for x in (q, k, v))
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(past)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1)


def gather(cache: Any, indptr: Any, indices: Any, s: int, length: int) -> Any:
    """The positions of sequence s, (length, kv_heads, …)."""
    pages = indices[indptr[s] : indptr[s + 1]].long()
    assert len(pages) == -(-length // cache.shape[1])
    return cache[pages].flatten(0, 1)[:length]


class Wrapper:
    """What decode and prefill share: grouped-query attention with what was planned."""

    log: Log
    buffers: Any = None

    def attend(self, q: Any, paged: tuple[Any, Any], out: Any) -> None:
        queries, indptr, indices, last = self.buffers
        assert {x.dtype for x in (q, out, *paged)} == {torch.float16}
        heads, kv_heads, key, page_size = self.shape
        assert q.shape == (int(queries[-1]), heads, key)
        assert paged[0].shape[1:] == (page_size, kv_heads, key)
        for s in range(len(last)):
            length = int(indptr[s + 1] - indptr[s] - 1) * page_size + int(last[s])
            rows = [gather(plane, indptr, indices, s, length) for plane in paged]
            part = slice(int(queries[s]), int(queries[s + 1]))
            out[part] = attend(q[part], *rows, self.scale).half()


def _decode(log: Log) -> type:
    class DecodeWrapper(Wrapper):
        def __init__(self, workspace: Any, layout: str, **given: Any) -> None:
            assert given["use_cuda_graph"] and given["use_tensor_cores"] and layout == "NHD"
            self.indptr, self.indices, self.last = (
                given[f"paged_kv_{name}_buffer"] for name in ("indptr", "indices", "last_page_len")
            )
            assert len(self.indptr) == len(self.last) + 1

        def plan(self, indptr: Any, indices: Any, last: Any, *shape: int, **given: Any) -> None:
            log.plan("plan decode", int(indptr[-1] - 1) * shape[3] + int(last[-1]))
            assert len(last) == len(self.last) and len(indices) <= len(self.indices)
            self.indptr.copy_(indptr)
            self.last.copy_(last)
            self.indices[: len(indices)].copy_(indices)
            self.buffers = torch.arange(len(last) + 1), self.indptr, self.indices, self.last
            self.shape, self.scale = shape, given["sm_scale"]
            assert given["q_data_type"] == given["kv_data_type"] == torch.float16

        def run(self, q: Any, paged: tuple[Any, Any], out: Any) -> None:
            log.calls.append(("decode", len(q)))
            self.attend(q, paged, out)

    return DecodeWrapper


def _prefill(log: Log) -> type:
    class PrefillWrapper(Wrapper):
        def __init__(self, workspace: Any, layout: str) -> None:
            assert layout == "NHD"

        def plan(
            self, queries: Any, indptr: Any, indices: Any, last: Any, *shape: int, **given: Any
        ) -> None:
            log.plan("plan prefill", int(indptr[-1] - 1) * shape[3] + int(last[-1]))
            log.options.append(given)
            assert given["causal"] and given["head_dim_vo"] == shape[2]
            self.buffers = queries, indptr, indices, last
            self.shape, self.scale = shape, given["sm_scale"]

        def run(self, q: Any, paged: tuple[Any, Any], out: Any) -> None:
            log.calls.append(("prefill", len(q)))
            self.attend(q, paged, out)

    return PrefillWrapper


def _latent(log: Log) -> type:
    class LatentWrapper:
        def __init__(self, workspace: Any, use_cuda_graph: bool, **buffers: Any) -> None:
            self.graph, self.buffers = use_cuda_graph, buffers

        def plan(self, queries: Any, indptr: Any, indices: Any, lengths: Any, *rest: Any) -> None:
            log.plan("plan latent", int(lengths[-1]))
            names = ("qo_indptr", "kv_indptr", "kv_indices", "kv_len_arr")
            given = dict(zip(names, (queries, indptr, indices, lengths), strict=True))
            if not self.graph:
                self.buffers = given
            for name in names:
                target = self.buffers[name]
                (target[: len(indices)] if name == "kv_indices" else target).copy_(given[name])
            self.rest = rest

        def run(self, q: Any, tail: Any, latent: Any, rotated: Any, out: Any) -> None:
            log.calls.append(("latent", len(q)))
            heads, *_, causal, scale, q_type, kv_type = self.rest
            assert causal and q.shape[1] == heads and {q_type, kv_type} == {torch.float16}
            assert {x.dtype for x in (q, tail, latent, rotated, out)} == {torch.float16}
            queries, indptr, indices, lengths = self.buffers.values()
            both, cache = torch.cat([q, tail], -1), torch.cat([latent, rotated], -1)[:, :, None]
            for s in range(len(lengths)):
                rows = gather(cache, indptr, indices, s, int(lengths[s]))
                part = slice(int(queries[s]), int(queries[s + 1]))
                attn_out = attend(both[part], rows, rows[..., : q.shape[2]], scale)
                out[part] = attn_out.half()

    return LatentWrapper


def module(log: Log) -> Any:
    """A flashinfer whose calls go to `log`."""
    return SimpleNamespace(
        BatchDecodeWithPagedKVCacheWrapper=_decode(log),
        BatchPrefillWithPagedKVCacheWrapper=_prefill(log),
        mla=SimpleNamespace(BatchMLAPagedAttentionWrapper=_latent(log)),
    )
