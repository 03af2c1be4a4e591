"""`GpuOps`: the op set on one GPU. Weights stay in their GGUF type, activations are float32 tensors.

Chooses kernels by the number of rows and launches them; nothing here waits for the device but `to_numpy`
and `stream_moe_add`. One thread at a time uses a GpuOps, inside `active`, on torch's current stream.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor as X

from kernels import ggml
from kernels.choices import stacked
from kernels.device import Copy, DeviceMemory, DeviceMemoryError, DeviceOps, ExpertRequest
from kernels.gpu import elementwise
from kernels.gpu.attention.kv_cache import GpuCache
from kernels.gpu.attention_ops import (
    AttentionOps,
    Weight,
    as_matrix,
    as_vector,
)
from kernels.gpu.graph.gpu_graph import GraphForward, enabled
from kernels.gpu.graph.host_sync import FLAGS, HostSyncOps
from kernels.gpu.graph.inputs import Table, to_device
from kernels.gpu.memory.read_ahead import ReadAhead
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.memory.weight_store import WeightStore
from kernels.gpu.moe.ops import FeedForwardOps, takes_one_launch
from kernels.gpu.moe.streaming import ExpertStream
from kernels.gpu.quant import gemv
from kernels.gpu.quant.dense import linears
from kernels.gpu.recurrent.ops import RecurrentOps
from kernels.ops import (
    CacheShape,
    Floats,
    Forward,
    Ints,
    Routing,
    Tensor,
)
from kernels.timing import DEVICE, Rows

__all__ = ["GpuCache", "GpuOps"]


class GpuOps(AttentionOps, RecurrentOps, FeedForwardOps, HostSyncOps):
    """`kernels.device.DeviceOps` in Triton for one CUDA device: the current one where none is named.

    Device "cpu" is for tests: it needs TRITON_INTERPRET=1 before a kernel is imported, and raises
    `ValueError` without. `limit` simulates a device of so many bytes.
    """

    name = "gpu"

    def __init__(self, device: torch.device | str = "cuda", limit: int | None = None) -> None:
        device = torch.device(device)
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            device = torch.device("cuda", index)
        elif os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError(f"on {device} the GPU's kernels run in Triton's interpreter only")
        self._allocator = TrackedAllocator(device, limit)
        self._store = WeightStore(self._allocator)
        FeedForwardOps.__init__(self, ExpertStream(self._allocator, self._store))
        self._pass: GraphForward | None = None
        HostSyncOps.__init__(self, device)
        self.ahead = ReadAhead(device)
        RecurrentOps.__init__(self, self._allocator)
        with self.active():
            AttentionOps.__init__(self, device)

    def close(self) -> None:
        """Finish uploads and stop the threads that make them."""
        self._stream.close()
        self._store.close()

    # The device

    def memory(self) -> DeviceMemory:
        return self._allocator.memory()

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `kernels.device.DeviceOps`; memory that runs out inside is a `DeviceMemoryError`."""
        device = self._allocator.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            try:
                yield
            except RuntimeError as error:
                # torch's allocator has an error of its own; graphs, libraries and Triton's loading do not.
                if "out of memory" not in str(error):
                    raise
                words = str(error).partition(" GPU ")[0].partition("\n")[0]
                raise DeviceMemoryError(words) from error

    # Weights

    def matrix(self, tensor: Tensor) -> Weight:
        return self._store.load(tensor)

    def table(self, tensor: Tensor) -> Weight:
        """The table stays on the host: a token reads one row of it, which is copied."""
        return Table(tensor, torch.zeros(1, tensor.cols, device=self.device))

    def repacks(self, tensor: Tensor) -> bool:
        return True

    def vector(self, tensor: Tensor) -> Weight:
        values = torch.from_numpy(ggml.dequantise(tensor).copy())
        with self._allocator.room(values.nbytes):
            vector = values.to(self.device)
        self._allocator.keep(vector)
        return vector

    def kv_cache(self, shape: CacheShape) -> GpuCache:
        with self._allocator.room(shape.bytes_per_position * shape.pages * shape.page_size):
            cache = super().kv_cache(shape)
        planes = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
        self._allocator.keep(*(plane for plane in planes if plane is not None))
        return cache

    def expert_slots(self, tensor: Tensor, slots: int) -> Weight:
        return self._store.slots(tensor, slots)

    def upload(self, copies: Sequence[Copy[Weight]]) -> Callable[[], bool]:
        return self._store.upload(copies)

    def choices(self) -> Ints:
        """As `kernels.choices.Chooses` says, of passes of one token."""
        chosen = self.gathered_choices() if self._pass is None else self._pass.choices
        if chosen is None:
            return stacked([])
        ids: Ints = chosen.cpu().numpy()
        return ids[:, None]

    # Buffers

    def record(self, forward: Forward[X]) -> Forward[X]:
        if not enabled(self.device):
            return forward
        self._pass = GraphForward(self._inputs, forward, self.states_kept, self.gathered_choices)
        return self._pass

    def watch(self, rows: Rows | None) -> None:
        """Of captured passes: op by op, work on the device is not told from waiting for it."""
        if self._pass is not None:
            self._pass.watch(None if rows is None else rows.row(DEVICE))

    def embed(self, table: Weight, tokens: Ints, factor: float = 1.0) -> X:
        assert isinstance(table, Table), "a table is made by `table`"
        self.ahead.end()
        self.chosen = []
        rows = self._inputs.rows(table, tokens)
        return rows if factor == 1.0 else rows.mul_(factor)

    def set_hidden(self, rows: Floats) -> X:
        self.ahead.end()
        self.chosen = []
        return self._inputs.set_hidden(rows)

    def last_row(self, x: X) -> X:
        return x[-1:]

    def from_numpy(self, x: Floats) -> X:
        return to_device(x, self.device)

    def to_numpy(self, x: X) -> Floats:
        self.append_now()
        if x.device == self.device:
            x = x.cpu()
        else:  # a captured pass copies its result itself
            torch.cuda.current_stream(self.device).synchronize()
        array: Floats = x.numpy().copy()
        return array

    # Dense ops

    def norm_linear(
        self,
        x: X,
        norm: Weight | None,
        eps: float,
        weights: Sequence[Weight],
        biases: Sequence[Weight | None] | None = None,
    ) -> list[X]:
        return self.linears(x if norm is None else self.norm(x, norm, eps), weights, biases)

    def linear_add(self, x: X, weight: Weight, residual: X, bias: Weight | None = None) -> None:
        self._note(x, [weight])
        if len(x) <= gemv.GEMV_MAX_ROWS:
            added = None if bias is None else [as_vector(bias)]
            gemv.gemv(self.rows_of(x), [as_matrix(weight)], residual, added)
            return
        linears(x, [as_matrix(weight)], residual)
        if bias is not None:
            residual += as_vector(bias)

    # Experts of the host, beside what comes before and after

    def route_and_submit(
        self,
        request: ExpertRequest,
        x: X,
        norm: Weight,
        eps: float,
        router: Weight,
        bias: Weight | None,
        routing: Routing,
        logit_bias: Weight | None = None,
        scales: Weight | None = None,
    ) -> tuple[X, X, X]:
        """The kernel that chooses writes the request too, and raises its flag; outside of a capture another flag, so
        that the kernel is loaded before."""
        if not takes_one_launch(x, router):
            routed = self.route(x, norm, eps, router, bias, routing, logit_bias, scales)
            if self.capturing:
                self.submit(request, *routed)
            return routed
        flag = None
        if self.host_sync == FLAGS:
            flag = torch.from_numpy(request.submitted if self.capturing else self.spare_flag)
        to_host = torch.from_numpy(request.inputs), flag
        vectors = logit_bias, bias, scales
        ahead = self.ahead.parts(request.address)
        routed = self.route_in_one(x, norm, eps, router, vectors, routing, to_host, ahead)
        if not self.capturing:
            self.ahead.behind(request.address)
        if flag is None and self.capturing:
            self.call_host(request)
        return routed

    def wait_norm(self, request: ExpertRequest, residual: X, norm: Weight, eps: float) -> X:
        flag = self.await_result(request)
        normed = torch.empty_like(residual)
        result = torch.from_numpy(request.result)
        q8 = self.known.make(normed)
        elementwise.rms_norm(result, as_vector(norm), eps, normed, residual, q8, flag)
        return normed


_: type[DeviceOps[X, Weight, GpuCache]] = GpuOps
