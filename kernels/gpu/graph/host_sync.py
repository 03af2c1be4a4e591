"""How a captured pass on a GPU asks the host for experts and takes the answer, without Python in between.

Knows letters (`kernels.device.Letter`), streams and what the driver offers; not what is asked. Where the
driver has them, the stream raises a flag in host memory and waits for another; else it calls a native
function of the host from a side stream, which costs some 30 us more a layer.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor as X

from kernels.cpu import native
from kernels.device import HandOver, Letter
from kernels.gpu.graph.capture import capturing
from kernels.gpu.graph.driver import Driver, DriverError, Streams
from kernels.gpu.graph.gpu_graph import enabled
from kernels.gpu.graph.inputs import staged
from kernels.ops import Ints

FLAGS: HandOver = "stream memory operations"
FUNCTIONS: HandOver = "host functions"
PROBE_SECONDS = 2.0
"""After which a probe that does not come back counts as failed."""


class HandOverOps:
    """The part of `kernels.device.DeviceOps` that captured passes need."""

    device: torch.device
    streams: Streams = Driver()
    _kind: HandOver | None = None
    _side: Any = None

    @property
    def hand_over(self) -> HandOver:
        """Found out by trying, the first time; where nothing is captured, nothing is tried."""
        if self._kind is None:
            self._kind = probe(self.device, self.streams) if enabled(self.device) else "none"
        return self._kind

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

    def look_up(self, ids: X, slots: X) -> X:
        """See `kernels.device.DeviceOps`."""
        return slots.view(-1)[ids.long()]

    def write(self, buffer: X, values: Ints) -> None:
        """See `kernels.device.DeviceOps`."""
        buffer.copy_(staged(values, self.device), non_blocking=True)

    def post(self, letter: Letter, x: X, ids: X, weights: X) -> None:
        """Copies the question out, then says so: the flag comes last, since a stream keeps its order."""
        for target, source in ((letter.x, x), (letter.ids, ids), (letter.weights, weights)):
            torch.from_numpy(target).copy_(source, non_blocking=True)
        if self.hand_over == FLAGS:
            self.streams.write(self._handle(), letter.asked.ctypes.data, 1)
            return
        side = self._side_stream()
        side.wait_stream(torch.cuda.current_stream(self.device))
        self.streams.call(side.cuda_stream, native.address_of("kt_answer"), letter.address)

    def collect(self, letter: Letter, residual: X) -> None:
        """Waits in the stream. The flag is taken back before the letter can be posted again."""
        if self.hand_over == FLAGS:
            self.streams.wait(self._handle(), letter.answered.ctypes.data, 1)
            self.streams.write(self._handle(), letter.answered.ctypes.data, 0)
        else:
            torch.cuda.current_stream(self.device).wait_stream(self._side_stream())
        answer = torch.empty_like(residual)
        answer.copy_(torch.from_numpy(letter.answer), non_blocking=True)
        residual += answer

    def _handle(self) -> int:
        if self.device.type != "cuda":
            return 0
        handle: int = torch.cuda.current_stream(self.device).cuda_stream
        return handle

    def _side_stream(self) -> Any:
        if self._side is None:
            self._side = torch.cuda.Stream(self.device)
        return self._side


def pinned(shape: tuple[int, ...], kind: Any, device: torch.device) -> Any:
    """A zeroed numpy array in memory that a GPU can reach; ordinary memory for the CPU."""
    bytes_of = torch.zeros(
        int(np.prod(shape)) * np.dtype(kind).itemsize,
        dtype=torch.uint8,
        pin_memory=device.type == "cuda",
    )
    return bytes_of.numpy().view(kind).reshape(shape)


# ---- what the driver can do --------------------------------------------------------------------------


def probe(device: torch.device, streams: Streams) -> HandOver:
    """The best hand-over that a small graph proves to work on this device."""
    if device.type != "cuda":
        return "none"
    for kind in (FLAGS, FUNCTIONS):
        try:
            with torch.cuda.device(device):  # asked before a pass, it is not the current one
                if _works(kind, device, streams):
                    return kind
        except (DriverError, RuntimeError):  # the driver's or torch's word for: not here
            continue
    return "none"


def _works(kind: HandOver, device: torch.device, streams: Streams) -> bool:
    """Whether a graph asks the host, waits for the answer and ends, twice."""
    asked, answered = (pinned((1,), np.int32, device) for _ in range(2))
    graph = torch.cuda.CUDAGraph()
    with capturing(graph, torch.cuda.Stream(device)):
        stream = torch.cuda.current_stream(device).cuda_stream
        if kind == FLAGS:
            streams.write(stream, asked.ctypes.data, 1)
            streams.wait(stream, answered.ctypes.data, 1)
            streams.write(stream, answered.ctypes.data, 0)
        else:
            streams.call(stream, _raise_flag(), asked.ctypes.data)
    for _ in range(2):
        asked[0] = 0
        done: Any = torch.cuda.Event()
        graph.replay()
        done.record()
        heard = _until(lambda: bool(asked[0]))
        answered[0] = 1  # even when nothing was heard: the stream must not wait for ever
        if not _until(done.query) or not heard:
            return False
        if kind == FLAGS and answered[0]:
            return False
    return True


def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PROBE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
    return True


@cache
def _raise_flag() -> int:
    """Address of a function of the host that raises the flag at its argument; never freed."""

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def raise_flag(flag: int) -> None:
        ctypes.c_int32.from_address(flag).value = 1

    _kept.append(raise_flag)
    return ctypes.cast(raise_flag, ctypes.c_void_p).value or 0


_kept: list[Any] = []
