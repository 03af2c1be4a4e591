"""What a captured pass puts on the stream when it needs experts of the host, in which order; and what a probe believes.

The driver is a fake that notes its calls and looks at the request meanwhile. On a GPU the real one is probed.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.graph import host_sync
from kernels.gpu.graph.driver import Driver, DriverError
from kernels.gpu.graph.host_sync import FLAGS, FUNCTIONS, HostSyncOps, joined, pinned, probe
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU
from tests.support.clock import PATIENCE

HIDDEN, TOP_K = 8, 2


class NotedStreams:
    """Notes every call with the request's state at that moment; `wait` completes it as a host would."""

    def __init__(self, request: Any) -> None:
        self.request, self.calls = request, []  # type: ignore[var-annotated]

    def write(self, stream: int, address: int, value: int) -> None:
        name = {
            self.request.submitted.ctypes.data: "submitted",
            self.request.completed.ctypes.data: "completed",
        }
        self.calls.append((name[address], value, self.request.x[0, 0]))

    def wait(self, stream: int, address: int, value: int) -> None:
        assert address == self.request.completed.ctypes.data
        self.request.result[:], self.request.completed[0] = 10, 1
        self.calls.append(("wait", value, self.request.x[0, 0]))

    def call(self, stream: int, function: int, argument: int) -> None:
        self.calls.append(("call", argument, self.request.x[0, 0]))


def expert_request() -> Any:
    device = torch.device(DEVICE)
    inputs = pinned((HIDDEN + 2 * TOP_K,), np.float32, device)
    return SimpleNamespace(
        inputs=inputs,
        x=inputs[:HIDDEN].reshape(1, -1),
        weights=inputs[HIDDEN : HIDDEN + TOP_K].reshape(1, -1),
        ids=inputs[HIDDEN + TOP_K :].view(np.int32).reshape(1, -1),
        result=pinned((1, HIDDEN), np.float32, device),
        submitted=pinned((1,), np.int32, device),
        completed=pinned((1,), np.int32, device),
        address=4711,
    )


def test_what_follows_each_other_is_copied_at_once() -> None:
    whole = torch.arange(HIDDEN + 2 * TOP_K, dtype=torch.float32, device=DEVICE)
    x, weights, ids = (part[None] for part in whole.split([HIDDEN, TOP_K, TOP_K]))
    together = joined(x, weights, ids.view(torch.int32))
    assert together is not None and torch.equal(together, whole)
    assert joined(x.clone(), weights, ids) is None and joined(x, ids, weights) is None


@pytest.mark.skipif(ON_GPU, reason="there the stream is real")
def test_the_request_is_complete_before_the_flag_and_the_flag_is_lowered() -> None:
    ops, request = GpuOps(DEVICE), expert_request()
    noted = NotedStreams(request)
    ops.streams, ops._kind = noted, FLAGS
    x = torch.full((1, HIDDEN), 3.0)
    ids, weights = torch.tensor([[5, 1]], dtype=torch.int32), torch.tensor([[0.5, 0.25]])
    ops.submit(request, x, ids, weights)
    assert request.ids.tolist() == [[5, 1]] and request.weights.tolist() == [[0.5, 0.25]]
    residual = torch.ones(1, HIDDEN)
    ops.wait(request, residual)
    assert (residual == 11).all()
    assert noted.calls == [("submitted", 1, 3.0), ("wait", 1, 3.0)]
    assert request.completed[0] == 0


@pytest.mark.skipif(ON_GPU, reason="there the stream is real")
def test_a_host_function_is_called_beside_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def stream(name: str) -> Any:
        return SimpleNamespace(
            cuda_stream=1, wait_stream=lambda other: order.append(f"{name} waits for {other.name}"), name=name
        )  # fmt: skip

    main, side = stream("main"), stream("side")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main)
    ops, request = GpuOps(DEVICE), expert_request()
    noted = NotedStreams(request)
    ops.streams, ops._kind, ops._side = noted, FUNCTIONS, side
    x = torch.full((1, HIDDEN), 2.0)
    ops.submit(request, x, torch.zeros(1, TOP_K, dtype=torch.int32), torch.zeros(1, TOP_K))
    assert noted.calls == [("call", 4711, 2.0)]
    request.result[:] = 4
    residual = torch.ones(1, HIDDEN)
    ops.wait(request, residual)
    assert (residual == 5).all()
    assert order == ["side waits for main", "main waits for side"]


def test_tables_of_slots_change_in_place() -> None:
    ops: Any = GpuOps(DEVICE)
    table = ops.from_numpy(np.array([[-1, 2, -1, 0]], np.int32))
    where = table.data_ptr()
    ops.write(table, np.array([[7, -1, -1, -1]], np.int32))
    assert table.data_ptr() == where and table.tolist() == [[7, -1, -1, -1]]


# ---- the probe ---------------------------------------------------------------------------------------


class FakeGraph:
    """A graph whose replay does what was captured, with a host that reads and writes the same words."""

    def __init__(self, streams: Any) -> None:
        self.streams = streams

    def replay(self) -> None:
        self.streams.run()


class WorkingStreams:
    """Words in memory; what is launched is done by a thread, beside the caller."""

    def __init__(self, flags: bool = True, functions: bool = True, deaf: bool = False) -> None:
        self.flags, self.functions, self.deaf = flags, functions, deaf
        self.card: Any = None
        self.ops: list[Any] = []

    def write(self, stream: int, address: int, value: int) -> None:
        if not self.flags:
            raise DriverError("not supported (801)")
        self.ops.append(("write", address, value))

    def wait(self, stream: int, address: int, value: int) -> None:
        self.ops.append(("wait", address, value))

    def call(self, stream: int, function: int, argument: int) -> None:
        if not self.functions:
            raise DriverError("not supported (801)")
        self.ops.append(("call", function, argument))

    def run(self) -> None:
        self.left = list(self.ops)
        threading.Thread(target=self._go_on, daemon=True).start()

    def finished(self) -> bool:
        return not self.left

    def _go_on(self) -> None:
        while self.left:
            kind, address, value = self.left[0]
            if kind == "call":
                ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(value)
            elif kind == "wait" and ctypes.c_int32.from_address(address).value < value:
                time.sleep(0)
                continue
            elif kind == "write" and not self.deaf:
                ctypes.c_int32.from_address(address).value = value
            self.left.pop(0)


CARD = torch.device("cuda", 1)
"""Not the current device when the probe begins."""


class Card:
    """What torch says of two cards: which is current, which stream is, and what a capture is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, streams: WorkingStreams) -> None:
        self.current, self.captured = torch.device("cuda", 0), []  # type: ignore[var-annotated]
        self.stream: Any = "default"
        event = SimpleNamespace(record=lambda: None, query=streams.finished)
        real = host_sync.pinned
        self.kept: list[Any] = []  # a stream that is given up goes on with its words

        def kept(shape: Any, kind: Any, device: Any) -> Any:
            self.kept.append(real(shape, kind, torch.device("cpu")))
            return self.kept[-1]

        streams.card = self
        monkeypatch.setattr(host_sync, "pinned", kept)
        monkeypatch.setattr(host_sync, "PROBE_SECONDS", 0.05 if streams.deaf else PATIENCE)
        monkeypatch.setattr(host_sync, "HAND_OVERS", 3)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(streams))
        monkeypatch.setattr(
            torch.cuda, "Stream", lambda device=None: (device or self.current, "side")
        )
        monkeypatch.setattr(torch.cuda, "current_stream", self.current_stream)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda s: setattr(self, "stream", s))
        monkeypatch.setattr(torch.cuda, "Event", lambda: event)

        @contextmanager
        def current(device: torch.device) -> Iterator[None]:
            before, self.current = self.current, device
            yield
            self.current = before

        @contextmanager
        def capture(graph: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
            self.captured.append((stream, self.current, gc.isenabled()))
            streams.ops.clear()
            self.stream = stream
            yield  # where it fails, torch's own forgets the stream that was current before
            self.stream = "default"

        monkeypatch.setattr(torch.cuda, "device", current)
        monkeypatch.setattr(torch.cuda, "graph", capture)

    def current_stream(self, device: Any = None) -> Any:
        return self.stream if self.stream == "default" else SimpleNamespace(cuda_stream=7)


@pytest.mark.skipif(ON_GPU, reason="there the driver is real")
@pytest.mark.parametrize(
    ("streams", "kind"),
    [
        (WorkingStreams(functions=False), FLAGS),
        (WorkingStreams(flags=False), FUNCTIONS),
        (WorkingStreams(deaf=True), FUNCTIONS),  # it takes the calls and does nothing
        (WorkingStreams(flags=False, functions=False), "none"),
    ],
)
def test_a_probe_believes_what_it_has_seen(
    streams: WorkingStreams, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(monkeypatch, streams)
    assert probe(CARD, streams) == kind
    # torch's own side stream would be one of the device that captured first.
    assert set(card.captured) == {((CARD, "side"), CARD, False)}
    assert card.stream == "default" and gc.isenabled()


@pytest.mark.skipif(ON_GPU, reason="there the driver is real")
@pytest.mark.parametrize(("flags", "kind"), [(2e-6, FLAGS), (9e-5, FUNCTIONS), (None, FUNCTIONS)])
def test_of_the_ways_that_work_the_fastest_is_taken(
    flags: float | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = WorkingStreams()
    Card(monkeypatch, streams)
    assert (host_sync.hand_over_seconds(FLAGS, CARD, streams) or 0) > 0
    seconds = {FLAGS: flags, FUNCTIONS: 3e-5}
    monkeypatch.setattr(host_sync, "hand_over_seconds", lambda way, *rest: seconds[way])
    assert probe(CARD, streams) == kind


@pytest.mark.skipif(ON_GPU, reason="there the driver is real")
def test_where_nothing_is_captured_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who switches graphs off because they bring a driver down must not meet one in the probe."""
    streams = WorkingStreams(functions=False)
    card = Card(monkeypatch, streams)
    for setting, found, tries in (("0", "none", 0), ("1", FLAGS, 2)):
        monkeypatch.setenv("KTCHAT_GPU_GRAPH", setting)
        ops = HostSyncOps(CARD, streams)
        assert (ops.host_sync, len(card.captured)) == (found, tries)


@pytest.mark.skipif(ON_GPU, reason="there is a driver there")
def test_without_a_driver_the_call_says_so() -> None:
    with pytest.raises(DriverError, match="CUDA driver"):
        Driver().write(0, 0, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs KTCHAT_GPU_TESTS=1 and a CUDA device")
def test_this_driver_synchronises_by_itself() -> None:
    assert probe(torch.device("cuda", 0), Driver()) in (FLAGS, FUNCTIONS)
