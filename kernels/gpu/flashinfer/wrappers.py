"""flashinfer's paged attention where it is installed: decode, prefill and absorbed MLA.

flashinfer wants page lists on the host, one plan a step, and float16; `available` says which machines can
run it. `kernels.gpu.attention` does the same work without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor as X

from kernels.gpu.flashinfer.indices import IndexBuffers, page_index, pinned, query_offsets
from kernels.gpu.flashinfer.shapes import LATENT, LATENT_ROPE
from kernels.gpu.flashinfer.workspace import prefill_split
from kernels.ops import Ints

COMPUTE_CAPABILITY = (8, 0)


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether flashinfer can be used here; `reason` says why not, and is empty where it can."""

    usable: bool
    reason: str = ""


def available(device: int = 0) -> Availability:
    """Whether flashinfer runs on this CUDA device."""
    reason = _obstacle(device)
    return Availability(not reason, reason)


def _obstacle(device: int) -> str:
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    capability = torch.cuda.get_device_capability(device)
    if capability < COMPUTE_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
    if importlib.util.find_spec("flashinfer") is None:
        return "flashinfer is not installed"
    if importlib.util.find_spec("flashinfer_jit_cache") is None and not _compiler():
        return "flashinfer compiles its kernels at first use, and neither nvcc nor flashinfer-jit-cache is installed"
    try:
        load()
    except (ImportError, OSError, RuntimeError) as error:
        return f"flashinfer cannot be imported: {error}"
    return ""


def _compiler() -> bool:
    """Whether nvcc is where flashinfer looks for it."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    found = any(home and Path(home, "bin", "nvcc").is_file() for home in homes)
    return found or shutil.which("nvcc") is not None


def load() -> Any:
    """The flashinfer module. Ask `available` first."""
    return importlib.import_module("flashinfer")


@dataclass(frozen=True, slots=True)
class FlashShape:
    """The heads of one layer kind. For MLA `key` is 576, `value` 512 and `kv_heads` 1."""

    heads: int
    kv_heads: int
    key: int
    value: int
    page_size: int
    scale: float


class FlashPrefill:
    """A chunk of new tokens for each of several sequences; not for graphs, any number of sequences.

    `processors` are the GPU's: they decide what the plan asks of the workspace.
    """

    def __init__(self, flashinfer: Any, shape: FlashShape, workspace: X, processors: int) -> None:
        self._shape, self._device, self._processors = shape, workspace.device, processors
        self._wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")

    def plan(self, queries: Sequence[int], lengths: Sequence[int], pages: Sequence[Ints]) -> None:
        """Sequence s has `queries[s]` new tokens, the last of its `lengths[s]` positions."""
        shape = self._shape
        index = page_index(lengths, pages, shape.page_size).on(self._device)
        most = -(-max(lengths) // shape.page_size)
        heads = shape.heads, shape.kv_heads, shape.value
        self._wrapper.plan(
            pinned(query_offsets(queries, lengths), self._device),
            index.indptr,
            index.indices,
            index.last,
            shape.heads,
            shape.kv_heads,
            shape.key,
            shape.page_size,
            head_dim_vo=shape.value,
            causal=True,
            sm_scale=shape.scale,
            q_data_type=torch.float16,
            kv_data_type=torch.float16,
            **prefill_split(*heads, queries, most, self._processors),
        )

    def run(self, q: X, keys: X, values: X, out: X) -> None:
        """q (n, heads, key) and out (n, heads, value) float16, tokens in the order of the plan."""
        self._wrapper.run(q, (keys, values), out=out)


class FlashLatent:
    """Absorbed MLA, decode and prefill alike, for 1 .. max_sequences sequences, under graphs or not.

    `graph` fixes the buffers and one wrapper for each batch size.
    """

    def __init__(
        self, flashinfer: Any, shape: FlashShape, buffers: IndexBuffers, workspace: X, graph: bool
    ) -> None:
        if (shape.key, shape.value, shape.kv_heads) != (LATENT + LATENT_ROPE, LATENT, 1):
            raise ValueError(f"flashinfer's MLA has {LATENT} + {LATENT_ROPE} features, not {shape}")
        self._mla = flashinfer.mla
        self._shape = shape
        self._buffers = buffers
        self._workspace = workspace
        self._graph = graph
        self._wrappers: dict[int, Any] = {}
        self._current: Any = None

    def plan(self, queries: Sequence[int], lengths: Sequence[int], pages: Sequence[Ints]) -> None:
        """Sequence s has `queries[s]` new tokens, the last of its `lengths[s]` positions."""
        shape = self._shape
        device = self._workspace.device
        index = page_index(lengths, pages, shape.page_size).on(device)
        # The wrapper does not check this itself.
        if len(index.indices) > len(self._buffers.indices):
            raise ValueError(
                f"{len(index.indices)} pages in buffers for {len(self._buffers.indices)}"
            )
        self._current = self._wrapper(len(lengths))
        self._current.plan(
            pinned(query_offsets(queries, lengths), device),
            index.indptr,
            index.indices,
            index.lengths,
            shape.heads,
            LATENT,
            LATENT_ROPE,
            shape.page_size,
            True,  # causal
            shape.scale,
            torch.float16,
            torch.float16,
        )

    def run(self, q_latent: X, q_rope: X, cache: X, out: X) -> None:
        """q_latent and out (n, heads, 512), q_rope (n, heads, 64); cache (pages, page_size, 1, 576)."""
        rows = cache[:, :, 0]
        self._current.run(q_latent, q_rope, rows[..., :LATENT], rows[..., LATENT:], out=out)

    def _wrapper(self, sequences: int) -> Any:
        key = sequences if self._graph else 0
        if key not in self._wrappers:
            part = self._buffers.first(sequences)
            self._wrappers[key] = self._mla.BatchMLAPagedAttentionWrapper(
                self._workspace,
                use_cuda_graph=self._graph,
                qo_indptr=part.queries,
                kv_indptr=part.indptr,
                kv_indices=part.indices,
                kv_len_arr=part.lengths,
            )
        return self._wrappers[key]
