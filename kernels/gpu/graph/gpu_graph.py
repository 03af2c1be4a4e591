"""The forward pass of one token as a CUDA graph: one launch a token instead of some hundred.

The first token runs op by op, which compiles the kernels and makes the buffers; then the pass is captured,
and later tokens refill its inputs (`inputs`) and replay it. KTCHAT_GPU_GRAPH=0 switches it off.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor as X

from kernels.gpu.graph.capture import capturing
from kernels.gpu.graph.inputs import Inputs, Refill
from kernels.gpu.graph.pass_times import Marks, PassTimes
from kernels.ops import Forward, Ints, PassInput
from kernels.timing import OpTimes

Unchanged = Callable[[], AbstractContextManager[None]]
"""Makes a context in which passes leave recurrent states as they were."""

Gathered = Callable[[], X | None]
"""What the routers of the last pass chose, on the device; None: there are none."""

_WARM_UPS = 2
"""Passes on a side stream before capture, as torch asks for: libraries make their workspaces."""


def enabled(device: torch.device) -> bool:
    """Whether forward passes on this device are captured."""
    return device.type == "cuda" and os.environ.get("KTCHAT_GPU_GRAPH", "1") != "0"


class GraphForward:
    """`forward` of one token, captured at its first call. One stream and one thread at a time."""

    def __init__(
        self,
        inputs: Inputs,
        forward: Forward[X],
        unchanged: Unchanged = nullcontext,
        gathered: Gathered = lambda: None,
    ) -> None:
        self._inputs, self._forward, self._unchanged = inputs, forward, unchanged
        self._gathered = gathered
        self._captured: Captured | None = None
        self.choices: X | None = None
        """What `gathered` gave for the last call, on the host once its result is."""

    def __call__(self, pass_input: PassInput, pages: Ints, start: int) -> X:
        """The result for one token at position `start`, which the device or a replay has copied to the host."""
        if self._captured is None:
            result = self._forward(pass_input, pages, start)
            chosen = self._gathered()
            self.choices = None if chosen is None else chosen.cpu()
            arguments = pass_input, pages, start
            with self._unchanged():
                self._captured = Captured(self._inputs, self._forward, arguments, self._gathered)
            return result
        self.choices = self._captured.choices
        return self._captured.replay(pass_input, pages, start)

    def watch(self, times: OpTimes | None) -> None:
        """Tell `times` when passes ran that are replayed from now on; None ends that."""
        if self._captured is not None:
            self._captured.watch(times)


class Captured:
    """A graph and the buffers that it reads and writes.

    Capturing repeats the first token, whose keys and values are then written again to the same KV slots;
    recurrent states are the caller's to keep.
    """

    def __init__(
        self,
        inputs: Inputs,
        forward: Forward[X],
        arguments: tuple[PassInput, Ints, int],
        gathered: Gathered,
    ) -> None:
        assert inputs.source is not None, "a pass begins with `embed` or `set_hidden`"
        self._input: Any = inputs.source
        self._refills: tuple[Refill, ...] = tuple(inputs.refills)
        here, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                result = forward(*arguments)
        here.wait_stream(side)
        self._host = torch.empty(result.shape, pin_memory=result.is_cuda)
        self.choices = _room_for(gathered())
        self._graph = torch.cuda.CUDAGraph()
        self._marks = Marks()
        self._times: PassTimes | None = None
        with capturing(self._graph, side):
            self._marks.begun.record()
            self._host.copy_(forward(*arguments), non_blocking=True)
            if self.choices is not None and (chosen := gathered()) is not None:
                self.choices.copy_(chosen, non_blocking=True)
            self._marks.ended.record()

    def watch(self, times: OpTimes | None) -> None:
        """See `GraphForward`."""
        if self._times is not None:
            self._times.tell()
        self._times = None if times is None else PassTimes(self._marks, times)

    def replay(self, pass_input: PassInput, pages: Ints, start: int) -> X:
        """The result for another token, on the host once the stream has come as far; the next replay overwrites it.

        Its inputs are copied on the stream that replays. Behind the launch nothing is asked of the driver, which
        may wait for the device, which waits for the host.
        """
        self._input.write(pass_input)
        for refill in self._refills:
            refill.write(pages, start, 1)
        if self._times is not None:
            self._times.launch()
        self._graph.replay()
        return self._host


def _room_for(chosen: X | None) -> X | None:
    """Memory of the host for as much: none can be had in a capture."""
    if chosen is None:
        return None
    return torch.empty(chosen.shape, dtype=chosen.dtype, pin_memory=chosen.is_cuda)
