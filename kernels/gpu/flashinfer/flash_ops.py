"""flashinfer inside the op set: which caches take it, and its plans, one a step and not one a layer.

KTCHAT_GPU_FLASH=0 switches it off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor as X

from kernels.gpu.attention.kv_cache import GpuCache
from kernels.gpu.flashinfer import wrappers as flash
from kernels.gpu.flashinfer.indices import IndexBuffers
from kernels.gpu.flashinfer.shapes import LATENT, LATENT_ROPE, supports
from kernels.gpu.flashinfer.workspace import WORKSPACE_BYTES
from kernels.gpu.flashinfer.wrappers import FlashLatent, FlashPrefill, FlashShape
from kernels.ops import CacheShape, Ints


class Wrapper(Protocol):
    """`FlashPrefill` or `FlashLatent`."""

    def plan(
        self, queries: Sequence[int], lengths: Sequence[int], pages: Sequence[Ints]
    ) -> None: ...

    def run(self, *arguments: Any) -> None: ...


class Planned:
    """A wrapper with the plan of the step that was last written to it (`kernels.gpu.graph.inputs.Refill`)."""

    def __init__(self, wrapper: Wrapper, page_size: int, device: torch.device) -> None:
        self._wrapper, self._page_size, self._device = wrapper, page_size, device
        self._key: tuple[int, int, bytes] | None = None
        self._copied: torch.cuda.Event | None = None

    def write(self, pages: Ints, start: int, n: int) -> None:
        """Plan for n tokens at `start`, unless that is the plan. Not while a graph is captured."""
        used = -(-(start + n) // self._page_size)
        key = (start, n, pages[:used].tobytes())
        if key == self._key:
            return
        if self._copied is not None:
            # The wrapper writes plans to one pinned buffer, which the device may still be reading.
            self._copied.synchronize()
        self._key = None
        self._wrapper.plan([n], [start + n], [pages])
        self._key = key
        if self._device.type == "cuda":
            self._copied = self._copied or torch.cuda.Event()
            self._copied.record()

    def run(self, q: X, *rest: X, value: int) -> X:
        """The wrapper's result for q (n, heads, …), float32: (n, heads, value). It takes float16."""
        out = torch.empty(*q.shape[:2], value, dtype=torch.float16, device=q.device)
        self._wrapper.run(q.half(), *rest, out)
        return out.float()


class FlashOps:
    """flashinfer on one device of `processors` processors, for one sequence at a time."""

    def __init__(self, device: torch.device, processors: int) -> None:
        self._device, self._processors = device, processors
        self._workspace: X | None = None
        self._unusable: str | None = None
        self._planned: WeakKeyDictionary[GpuCache, dict[FlashShape, Planned]]
        self._planned = WeakKeyDictionary()

    def obstacle(self, shape: CacheShape, heads: int) -> str:
        """Why attention of `heads` query heads over such a cache is not flashinfer's; "" where it is."""
        if self._unusable is None:
            self._unusable = self._why_unusable()
        if self._unusable:
            return self._unusable
        if shape.kind != "f16":
            return "flashinfer has no cache in 8 bits of this kind"
        if shape.value == 0:
            wanted = LATENT + LATENT_ROPE
            return "" if shape.key == wanted else f"flashinfer has no latent rows of {shape.key}"
        if not supports(shape.key, shape.value):
            return f"flashinfer has no heads of {shape.key} and {shape.value} features"
        return ""

    def grouped(self, cache: GpuCache, heads: int, scale: float) -> Planned | None:
        """flashinfer's attention for a chunk, to be planned before it runs; None: it has none."""
        shape = cache.shape
        if self.obstacle(shape, heads):
            return None
        of = FlashShape(heads, shape.heads, shape.key, shape.value, shape.page_size, scale)
        return self._made(cache, of, self._prefill)

    def latent(self, cache: GpuCache, heads: int, features: int, scale: float) -> Planned | None:
        """The same for absorbed MLA with `features` latent features."""
        shape = cache.shape
        if self.obstacle(shape, heads) or features != LATENT:
            return None
        of = FlashShape(heads, 1, shape.key, features, shape.page_size, scale)
        return self._made(cache, of, partial(FlashLatent, graph=False))

    def _prefill(
        self, flashinfer: Any, shape: FlashShape, buffers: IndexBuffers, workspace: X
    ) -> FlashPrefill:
        return FlashPrefill(flashinfer, shape, workspace, self._processors)

    def _made(self, cache: GpuCache, key: FlashShape, make: Callable[..., Wrapper]) -> Planned:
        """A wrapper of this kind; it belongs to the cache and goes with it."""
        of_cache = self._planned.setdefault(cache, {})
        if key not in of_cache:
            if self._workspace is None:
                self._workspace = torch.zeros(
                    WORKSPACE_BYTES, dtype=torch.uint8, device=self._device
                )
            buffers = IndexBuffers.allocate(1, cache.pages, self._device)
            wrapper = make(flash.load(), key, buffers, self._workspace)
            of_cache[key] = Planned(wrapper, cache.page_size, self._device)
        return of_cache[key]

    def _why_unusable(self) -> str:
        if os.environ.get("KTCHAT_GPU_FLASH", "1") == "0":
            return "KTCHAT_GPU_FLASH=0"
        return flash.available(self._device.index or 0).reason
