"""A device over the reference: work that is done later and by a thread of its own, and memory that ends.

It keeps the promises of `kernels.device.DeviceOps` and no others: captured passes run beside the caller,
uploads take a while, a slot that is being filled holds nonsense, and memory is counted.
"""

from __future__ import annotations

import functools
import inspect
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from kernels.choices import stacked
from kernels.device import (
    Copy,
    DeviceMemory,
    DeviceMemoryError,
    DeviceOps,
    ExpertRequest,
    HostSync,
    StreamedLayer,
)
from kernels.ops import Bytes, CacheShape, Floats, Ints, Routing, Tensor
from kernels.recurrent import StateShape
from kernels.reference import Cache, ReferenceOps, Weight
from kernels.reference_recurrent import RecurrentState
from kernels.timing import DEVICE, OpTimes, Rows
from tests.support.clock import PATIENCE, until

GIB = 1 << 30


class SimulatedDevice(ReferenceOps):
    """`kernels.device.DeviceOps` with `total` bytes, of which other programs hold `others`."""

    name = "simulated"

    def __init__(
        self,
        total: int = GIB,
        others: int = 0,
        host_sync: HostSync = "stream memory operations",
        polls: int = 2,
    ) -> None:
        super().__init__()
        self.host_sync: HostSync = host_sync
        self.times: OpTimes | None = None
        self.late = False
        """The next captured pass begins when somebody sets this back."""
        self.held = self.peak = 0
        self.others = others
        self.uploads: list[list[Copy[Any]]] = []
        self.loaded: set[tuple[str, ...]] = set()
        """Ops that were done op by op: a GPU's driver loads no kernel while it captures."""
        self.streamed = self.replays = 0
        self.chosen: list[Any] = []
        self._captured_choice: list[Any] | None = None
        self.ahead: list[StreamedLayer] = []
        """What was to be fetched for the last pass."""
        self._total, self._polls = total, polls
        self._graph: Graph | None = None
        self._states: list[weakref.ref[Any]] = []
        self.work: Future[None] | None = None
        self.current = False
        self.repeats = False
        """A captured pass is being repeated."""

    # Memory

    def memory(self) -> DeviceMemory:
        return DeviceMemory(self._total - self.others - self.held, self._total)

    def take(self, count: int) -> None:
        """Hold so many bytes more, or fail as a device does."""
        if count > self.memory().free:
            raise DeviceMemoryError(f"{count} bytes wanted, {self.memory().free} are free")
        self.held += count
        self.peak = max(self.peak, self.held)

    def matrix(self, tensor: Tensor) -> Weight:
        self.take(tensor.data.nbytes)
        return super().matrix(tensor)

    def repacks(self, tensor: Tensor) -> bool:
        return True

    def kv_cache(self, shape: CacheShape) -> Cache:
        size = shape.bytes_per_position * shape.pages * shape.page_size
        self.take(size)
        cache = super().kv_cache(shape)
        weakref.finalize(cache.keys, self.take, -size).atexit = False
        return cache

    def recurrent_state(self, shape: StateShape) -> RecurrentState:
        self.take(size := shape.bytes_per_slot * shape.slots)
        state = super().recurrent_state(shape)
        weakref.finalize(state.matrices, self.take, -size).atexit = False
        self._states += map(weakref.ref, (state.conv, state.matrices))
        return state

    def clear_state(self, state: RecurrentState) -> None:
        self.drain()  # in the order of the calls
        super().clear_state(state)

    def copy_state(self, state: RecurrentState, source: int, target: int) -> None:
        self.drain()
        super().copy_state(state, source, target)

    def read_state(self, state: RecurrentState, slot: int) -> Bytes:
        self.drain()
        return super().read_state(state, slot)

    def write_state(self, state: RecurrentState, slot: int, data: Bytes) -> None:
        self.drain()
        super().write_state(state, slot, data)

    def read_page(self, cache: Cache, page: int) -> Bytes:
        self.drain()
        return super().read_page(cache, page)

    def write_page(self, cache: Cache, page: int, data: Bytes) -> None:
        self.drain()
        super().write_page(cache, page, data)

    def close(self) -> None:
        self.drain()

    @contextmanager
    def active(self) -> Iterator[None]:
        before, self.current = self.current, True
        try:
            yield
        finally:
            self.current = before

    # Experts

    def expert_slots(self, tensor: Tensor, slots: int) -> Weight:
        size = tensor.data.nbytes // tensor.shape[0]
        self.take(slots * size)
        data = np.full(slots * size, 255, dtype=np.uint8)
        return Weight(Tensor(tensor.name, tensor.type, (slots, *tensor.shape[1:]), data), None)

    def upload(self, copies: Sequence[Copy[Weight]]) -> Callable[[], bool]:
        self.uploads.append(list(copies))
        for copy in copies:
            self._slot(copy)[:] = 255  # nonsense until it is filled
        polls = self._polls

        def filled() -> bool:
            nonlocal polls
            polls -= 1
            if polls == 0:
                for copy in copies:
                    size = copy.tensor.data.nbytes // copy.tensor.shape[0]
                    self._slot(copy)[:] = copy.tensor.data[copy.expert * size :][:size]
            return polls <= 0

        return filled

    @staticmethod
    def _slot(copy: Copy[Weight]) -> Any:
        stack = copy.weights.tensor
        size = stack.data.nbytes // stack.shape[0]
        return stack.data[copy.slot * size :][:size]

    def stream(self, layers: Sequence[StreamedLayer], tokens: int) -> None:
        self.ahead = list(layers)

    def stream_moe_add(self, x: Any, ids: Any, weights: Any, *rest: Any) -> None:
        gate, up, down, residual, biases, activation = rest
        self.streamed += 1
        for layer in self.ahead:
            if layer.tensors[0] is gate:
                assert set(ids[ids >= 0].tolist()) <= set(layer.experts), "not fetched"
        stacks = (Weight(tensor, None) for tensor in (gate, up, down))
        added = None if biases is None else tuple(Weight(tensor, None) for tensor in biases)
        self.moe_add(x, ids, weights, *stacks, residual, added, activation)

    def resident_moe_add(
        self,
        x: Any,
        ids: Any,
        weights: Any,
        slots: Any,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: Any,
        biases: Any = None,
        activation: Any = "swiglu",
    ) -> None:
        here = slots[0][ids.long()]
        ReferenceOps.moe_add(self, x, here, weights, gate, up, down, residual, biases, activation)

    def write(self, buffer: Any, values: Ints) -> None:
        buffer.copy_(torch.from_numpy(values))

    def from_numpy(self, x: Floats) -> Any:
        return torch.from_numpy(x).clone()

    # What routers chose

    def embed(self, table: Weight, tokens: Ints, factor: float = 1.0) -> Any:
        self.chosen = []
        return super().embed(table, tokens, factor)

    def set_hidden(self, rows: Floats) -> Any:
        self.chosen = []
        return super().set_hidden(rows)

    def route(
        self,
        x: Any,
        norm: Any,
        eps: float,
        router: Any,
        bias: Any,
        routing: Routing,
        logit_bias: Any = None,
        scales: Any = None,
    ) -> Any:
        routed = super().route(x, norm, eps, router, bias, routing, logit_bias, scales)
        if len(routed[1]) == 1:
            self.chosen.append(routed[1])
        return routed

    def choices(self) -> Ints:
        self.drain()
        captured = self._captured_choice
        return stacked([ids.numpy() for ids in (self.chosen if captured is None else captured)])

    # Captured passes

    @property
    def capturing(self) -> bool:
        return self._graph is not None

    def record(self, forward: Any) -> Any:
        """As a GPU does: the first call runs and is captured, later ones are done beside the caller.

        A GPU computes nothing while it captures. Here ops do, to know their buffers.
        """
        graph: Graph | None = None

        def run(tokens: Ints, pages: Ints, start: int) -> Any:
            nonlocal graph
            if graph is not None:
                self.replays += 1
                self._captured_choice = graph.chosen
                return graph.launch(tokens, pages, start)
            known = [state() for state in self._states]
            before = [(state, state.clone()) for state in known if state is not None]
            for _ in range(2):  # as the GPU does, whose libraries make their workspaces
                forward(tokens, pages, start)
            graph = self._graph = Graph(self, tokens, pages)
            try:
                graph.result = forward(tokens, pages, start)
                graph.chosen = self.chosen
            finally:
                self._graph = None
            for state, was in before:
                state.copy_(was)
            return forward(tokens, pages, start)  # mends what capturing left in the cache

        return run

    def shared(self, shape: tuple[int, ...], kind: Any) -> Any:
        return np.zeros(shape, kind)

    def submit(self, request: ExpertRequest, x: Any, ids: Any, weights: Any) -> None:
        request.x[:], request.ids[:], request.weights[:] = x.numpy(), ids.numpy(), weights.numpy()
        request.submitted[0] = 1

    def route_and_submit(
        self,
        request: ExpertRequest,
        x: Any,
        norm: Any,
        eps: float,
        router: Any,
        bias: Any,
        routing: Routing,
        logit_bias: Any = None,
        scales: Any = None,
    ) -> Any:
        routed = self.route(x, norm, eps, router, bias, routing, logit_bias, scales)
        if self.repeats:
            self.submit(request, *routed)
        return routed

    def wait_norm(self, request: ExpertRequest, residual: Any, norm: Any, eps: float) -> Any:
        if not self.capturing:
            self.wait(request, residual)
        return self.norm(residual, norm, eps)

    def wait(self, request: ExpertRequest, residual: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not request.completed[0]:
            assert time.monotonic() < deadline, "no result"
            time.sleep(0)
        request.completed[0] = 0
        residual += torch.from_numpy(request.result)

    def to_numpy(self, x: Any) -> Floats:
        assert not self.capturing, "a captured pass cannot wait for the host"
        self.drain()
        return super().to_numpy(x).copy()

    def settle(self) -> None:
        self.drain()

    def watch(self, rows: Rows | None) -> None:
        self.drain()
        self.times = None if rows is None else rows.row(DEVICE)

    def drain(self) -> None:
        """Until the work that was launched is done; raises what failed in it."""
        work, self.work = self.work, None
        if work is not None:
            work.result(PATIENCE)


class Graph:
    """The ops of one pass and their buffers: a launch does them again, in a thread."""

    def __init__(self, device: SimulatedDevice, tokens: Ints, pages: Ints) -> None:
        self._device, self._tokens, self._pages = device, tokens, pages
        self._ops: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = []
        self.inside = False
        self._thread = ThreadPoolExecutor(1)
        self.result: Any = None
        self.chosen: list[Any] = []

    def call(self, op: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """One captured op; what synchronises with the host is not done now."""
        if self.inside:  # of another op
            return op(self._device, *arguments)
        self.inside = True
        waits = op.__name__ in ("submit", "wait")
        result = None if waits else op(self._device, *arguments)
        self.inside = False
        self._ops.append((op, arguments, result))
        return result

    def launch(self, tokens: Ints, pages: Ints, start: int) -> Any:
        self._device.drain()
        self._device.work = self._thread.submit(self._run, tokens.copy(), pages.copy(), start)
        return self.result

    def _run(self, tokens: Ints, pages: Ints, start: int) -> None:
        until(lambda: not self._device.late)
        begin = time.perf_counter_ns()
        self._repeat(tokens, pages, start)
        if self._device.times is not None:
            self._device.times.ops(("pass",), (None,), (begin, time.perf_counter_ns()))

    def _repeat(self, tokens: Ints, pages: Ints, start: int) -> None:
        self._device.repeats = True
        for op, arguments, result in self._ops:
            now, after_pages = [], False
            for argument in arguments:
                if after_pages:
                    argument = start
                after_pages = argument is self._pages
                now.append(
                    tokens if argument is self._tokens else pages if after_pages else argument
                )
            again = op(self._device, *now)
            for new, old in zip(_tensors(again), _tensors(result), strict=True):
                old.copy_(new)
        self._device.repeats = False


def _tensors(result: Any) -> list[Any]:
    if result is None:
        return []
    return list(result) if isinstance(result, list | tuple) else [result]


def _captured(op: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(op)
    def call(self: SimulatedDevice, *arguments: Any, **named: Any) -> Any:
        assert self.current, f"{op.__name__} outside of active()"
        bound = inspect.signature(op).bind(self, *arguments, **named)
        values = tuple(bound.arguments.values())[1:]
        kernel = (op.__name__, *(v.tensor.type.name for v in values if isinstance(v, Weight)))
        if self._graph is None:
            self.loaded.add(kernel)
            return op(self, *values)
        known = self._graph.inside or kernel in self.loaded or op.__name__ in ("submit", "wait")
        assert known, f"a kernel is loaded in a capture: {kernel}"
        return self._graph.call(op, values)

    return call


_OPS = """embed set_hidden last_row zeros norm norm_add soft_cap norm_linear linear_add add rope_append
attention latent_append latent_attention delta_net sigmoid_gate route moe_add resident_moe_add ffn_add submit wait route_and_submit wait_norm"""
for _name in _OPS.split():
    setattr(SimulatedDevice, _name, _captured(getattr(SimulatedDevice, _name)))

_: type[DeviceOps[torch.Tensor, Weight, Cache]] = SimulatedDevice
