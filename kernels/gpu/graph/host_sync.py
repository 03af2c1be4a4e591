"""How a captured pass on a GPU gets experts from the host, without Python in between.

Requests (`kernels.device.ExpertRequest`) lie in pinned memory. Where the driver has stream memory
operations, the stream raises a flag there and waits for another; else it calls a native function of the
host from a side stream, which costs some 30 us more a layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor as X

from kernels.cpu import native
from kernels.device import ExpertRequest, HostSync
from kernels.gpu.graph.answers import add
from kernels.gpu.graph.capture import capturing
from kernels.gpu.graph.driver import Driver, DriverError, Streams
from kernels.gpu.graph.gpu_graph import enabled
from kernels.gpu.graph.inputs import staged
from kernels.ops import Ints

FLAGS: HostSync = "stream memory operations"
FUNCTIONS: HostSync = "host functions"
HAND_OVERS = 100
"""Of a probe: two layers' worth of every model."""
PROBE_SECONDS = 2.0
"""After which a flag of a probe that does not come counts as lost."""


class HostSyncOps:
    """The part of `kernels.device.DeviceOps` that captured passes need."""

    def __init__(self, device: torch.device, streams: Streams | None = None) -> None:
        self.device = device
        self.streams: Streams = Driver() if streams is None else streams
        self._kind: HostSync | None = None
        self._side: Any = None

    @property
    def host_sync(self) -> HostSync:
        """Found out by trying, the first time; where nothing is captured, nothing is tried."""
        if self._kind is None:
            self._kind = probe(self.device, self.streams) if enabled(self.device) else "none"
        return self._kind

    @cached_property
    def spare_flag(self) -> Ints:
        """A flag (1,) that nobody looks at."""
        flag: Ints = self.shared((1,), np.int32)
        return flag

    @property
    def capturing(self) -> bool:
        """Whether ops called now become part of a graph."""
        return self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def settle(self) -> None:
        """See `kernels.device.DeviceOps`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def shared(self, shape: tuple[int, ...], kind: Any) -> Any:
        """Pinned host memory, zeroed: the device addresses it as we do."""
        return pinned(shape, kind, self.device)

    def write(self, buffer: X, values: Ints) -> None:
        """See `kernels.device.DeviceOps`."""
        buffer.copy_(staged(values, self.device), non_blocking=True)

    def submit(self, request: ExpertRequest, x: X, ids: X, weights: X) -> None:
        """Copies the activations out, then raises the flag, which comes last: a stream keeps its order.

        One copy where they follow each other on the device, as `route` leaves them.
        """
        together = joined(x, weights, ids)
        pairs = ((request.x, x), (request.ids, ids), (request.weights, weights))
        for target, source in pairs if together is None else ((request.inputs, together),):
            torch.from_numpy(target).copy_(source, non_blocking=True)
        if self.host_sync == FLAGS:
            self.streams.write(self._handle(), request.submitted.ctypes.data, 1)
        else:
            self.call_host(request)

    def call_host(self, request: ExpertRequest) -> None:
        """Once the stream has come here, the host serves the request, called from a side stream."""
        side = self._side_stream()
        side.wait_stream(torch.cuda.current_stream(self.device))
        self.streams.call(side.cuda_stream, native.address_of("kt_serve_request"), request.address)

    def wait(self, request: ExpertRequest, residual: X) -> None:
        """See `kernels.device.DeviceOps`; the result is read where the host has written it. What reads it lowers the
        flag, before the request can be submitted again."""
        add(residual, torch.from_numpy(request.result), self.await_result(request))

    def await_result(self, request: ExpertRequest) -> X | None:
        """The stream waits; the flag that is then to be lowered, where there is one.

        No kernel waits in its place: it would hold a processor meanwhile, and where a screen is drawn the driver ends
        a kernel that takes seconds.
        """
        if self.host_sync == FLAGS:
            self.streams.wait(self._handle(), request.completed.ctypes.data, 1)
            return torch.from_numpy(request.completed)
        torch.cuda.current_stream(self.device).wait_stream(self._side_stream())
        return None

    def _handle(self) -> int:
        if self.device.type != "cuda":
            return 0
        handle: int = torch.cuda.current_stream(self.device).cuda_stream
        return handle

    def _side_stream(self) -> Any:
        if self._side is None:
            self._side = torch.cuda.Stream(self.device)
        return self._side


def joined(x: X, weights: X, ids: X) -> X | None:
    """One token's x, weights and ids as one vector of float32, if they follow each other in one buffer."""
    follow = x.data_ptr() + 4 * x.numel(), weights.data_ptr() + 4 * weights.numel()
    if len(x) > 1 or follow != (weights.data_ptr(), ids.data_ptr()):
        return None
    if x.untyped_storage().data_ptr() != ids.untyped_storage().data_ptr():
        return None
    return x.as_strided((x.numel() + weights.numel() + ids.numel(),), (1,))


def pinned(shape: tuple[int, ...], kind: Any, device: torch.device) -> Any:
    """A zeroed numpy array in memory that a GPU can reach; ordinary memory for the CPU."""
    bytes_of = torch.zeros(
        int(np.prod(shape)) * np.dtype(kind).itemsize,
        dtype=torch.uint8,
        pin_memory=device.type == "cuda",
    )
    return bytes_of.numpy().view(kind).reshape(shape)


# ---- what the driver can do --------------------------------------------------------------------------


def probe(device: torch.device, streams: Streams) -> HostSync:
    """The fastest of the ways that a small graph proves to work on this device."""
    if device.type != "cuda":
        return "none"
    seconds: dict[HostSync, float] = {}
    for kind in (FLAGS, FUNCTIONS):
        try:
            with torch.cuda.device(device):  # asked before a pass, it is not the current one
                taken = hand_over_seconds(kind, device, streams)
        except (DriverError, RuntimeError):  # the driver's or torch's word for: not here
            continue
        if taken is not None:
            seconds[kind] = taken
    return min(seconds, key=seconds.__getitem__, default="none")


def hand_over_seconds(kind: HostSync, device: torch.device, streams: Streams) -> float | None:
    """What one of `HAND_OVERS` takes in a graph that is replayed for the second time; None: it does not work."""
    submitted, completed = (pinned((1,), np.int32, device) for _ in range(2))
    graph = torch.cuda.CUDAGraph()
    with capturing(graph, torch.cuda.Stream(device)):
        stream = torch.cuda.current_stream(device).cuda_stream
        for _ in range(HAND_OVERS):
            if kind == FLAGS:
                streams.write(stream, submitted.ctypes.data, 1)
                streams.wait(stream, completed.ctypes.data, 1)
                streams.write(stream, completed.ctypes.data, 0)
            else:
                raises = native.address_of("kt_raise_flag")
                streams.call(stream, raises, submitted.ctypes.data)
    if _replay(kind, graph, submitted, completed) is None:
        return None
    taken = _replay(kind, graph, submitted, completed)
    return None if completed[0] else taken


def _replay(kind: HostSync, graph: Any, submitted: Ints, completed: Ints) -> float | None:
    """Seconds for each hand-over of one replay; None where flags were not heard, or it did not end."""
    submitted[0] = 0
    done: Any = torch.cuda.Event()
    begin = time.perf_counter()
    graph.replay()
    done.record()
    heard = _answer(kind, submitted, completed)
    ended = _until(lambda: _released(done, completed, heard))
    return (time.perf_counter() - begin) / HAND_OVERS if heard and ended else None


def _answer(kind: HostSync, submitted: Ints, completed: Ints) -> bool:
    """The host's part of a replay: whether every flag was raised in time."""
    if kind == FUNCTIONS:
        return _until(lambda: bool(submitted[0]))
    for _ in range(HAND_OVERS):
        if not _until(lambda: bool(submitted[0])):
            return False
        submitted[0] = 0
        completed[0] = 1
    return True


def _released(done: Any, completed: Ints, heard: bool) -> bool:
    """Whether a replay ended; one whose flags are not heard must not wait for ever."""
    if not heard:
        completed[0] = 1
    return bool(done.query())


def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PROBE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
    return True
