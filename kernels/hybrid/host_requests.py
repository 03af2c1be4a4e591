"""The expert requests of a captured pass: one a layer, served by the host while the pass is replayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic

import numpy as np

from kernels.cpu.cpu_ops import CpuOps
from kernels.cpu.expert_requests import ExpertRequest, RequestQueue
from kernels.device import DeviceOps
from kernels.hybrid.pass_state import PassOrderError
from kernels.ops import C, Floats, Ints, Ops
from kernels.recurrent import W, X
from kernels.timing import HOST, OpTimes, Rows


class HostRequests(Generic[X, W, C]):
    """Requests by layer, and the queue of those that a captured pass submits."""

    def __init__(
        self, device: DeviceOps[X, W, C], host: Ops[Floats, Any, Any], thread: ThreadPoolExecutor
    ) -> None:
        self._device, self._host, self._thread = device, host, thread
        self._made: dict[str, ExpertRequest] = {}
        self._queue: RequestQueue | None = None
        self._times = _ServeTimes()

    def request(
        self, layer: str, experts: tuple[Any, Any, Any], top_k: int, slots: Ints | None
    ) -> ExpertRequest:
        """A layer's, of its experts' stacks, biases and activation, made when its first token runs op by op: nothing may be allocated in a capture."""
        if layer not in self._made:
            assert isinstance(self._host, CpuOps), "requests are served by the native library"
            stacks, *rest = experts
            self._made[layer] = ExpertRequest(
                self._host, stacks, top_k, slots, self._device.shared, *rest
            )
        return self._made[layer]

    def made(self, layer: str) -> ExpertRequest | None:
        """A layer's, if there is one."""
        return self._made.get(layer)

    def captured(self, layers: Iterable[str]) -> None:
        """A pass was captured: its requests are all that were made, in the order of the layers."""
        made = self._made  # in the order of first use: a chunk's last layer has one row too
        self._made = {layer: made[layer] for layer in layers if layer in made}
        self._queue = RequestQueue(list(self._made.values()))

    @contextmanager
    def served(self) -> Iterator[None]:
        """Inside, the device begins to repeat a token; the host does its part beside that.

        Not after it in the same thread: launching may wait for room in the device's queue, and the calls
        behind it for memory or a kernel to be loaded, which may wait for the device, and it waits for us.
        """
        queue = self._captured_queue()
        if self._device.host_sync == "stream memory operations":
            work = self._thread.submit(queue.serve)
            try:
                yield
                work.result()
            except BaseException:
                # No flag may stay up: the next token's first result would be of this one's request.
                queue.release()
                wait([work])
                self._device.settle()
                queue.clear()
                raise
        else:
            yield
        self._times.untold = True

    def check(self) -> None:
        """Raise what went wrong in the results of the last replay."""
        self._captured_queue().check()

    def chosen(self, layers: Sequence[str]) -> Ints:
        """The ids that the last replay chose in these layers, (layers, top_k)."""
        return np.concatenate([self._made[layer].ids for layer in layers])

    def watch(self, rows: Rows | None) -> None:
        """Tell `rows` when requests were served from now on; None ends that."""
        self.tell()
        self._times = _ServeTimes(None if rows is None else rows.row(HOST))

    def tell(self) -> None:
        """The last replay's times, which are all there once its result was read."""
        self._times.tell(self._made)

    def _captured_queue(self) -> RequestQueue:
        if self._queue is None:
            raise PassOrderError("a pass is captured before it is replayed")
        return self._queue


class _ServeTimes:
    """When the requests of one replay were served, told once."""

    def __init__(self, times: OpTimes | None = None) -> None:
        self._times = times
        self.untold = False

    def tell(self, requests: dict[str, ExpertRequest]) -> None:
        if self._times is None or not self.untold:
            return
        self.untold = False
        for layer, request in requests.items():
            self._times.ops(("moe_add",), (int(layer.rpartition(".")[2]),), request.span)
