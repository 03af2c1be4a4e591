"""Routed experts of which some are on a device and the others on the host: who computes what, and when.

Called op by op, a layer reads the router's choice from the device, and waits; a long chunk's absent experts
may pass through the device's buffers instead. A captured pass submits requests, which the host serves
while the token runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic

import numpy as np

from kernels.cpu.expert_requests import ExpertRequest
from kernels.device import DeviceOps, StreamedLayer
from kernels.hybrid.expert_slots import ExpertSlots, Routed, Stack, even_chunk
from kernels.hybrid.host_requests import HostRequests
from kernels.hybrid.pass_state import Computing, PassState, Submitted
from kernels.hybrid.residency import Residency
from kernels.ops import C, Floats, Ops, Tensor
from kernels.recurrent import W, X
from kernels.timing import Rows, Watched

Slots = Callable[[Tensor], int]
"""How many experts of a stack have a slot on the device. All of them: the host has none of the layer's;
fewer: the host has every one."""


class SplitExperts(Generic[X, W, C]):
    """The experts of a `kernels.hybrid.split.SplitOps`. One thread at a time uses them.

    A pass is `begin`, then `add` and `join` for each layer, or `begin` and then `replay`; `finish` once the
    device has done it. `PassState` raises `PassOrderError` for any other order.
    """

    def __init__(
        self, device: DeviceOps[X, W, C], host: Ops[Floats, Any, Any], slots: Slots
    ) -> None:
        self._device, self._host, self._slots_of = device, host, slots
        self.stream_from: int | None = None
        """Tokens of a chunk from which on absent experts are computed on the device; None: never."""
        self._fetching = False
        self.host_rests = False
        """Nothing is computed on the host, and results are wrong: to try the device alone."""
        self._layers: dict[str, list[Stack[W]]] = {}
        """Gate, up, down, and their biases if there are any."""
        self._slots: ExpertSlots[X, W, C] | None = None
        self._thread = ThreadPoolExecutor(1, "host experts")
        self._pass: PassState[X] = PassState()
        self._requests: HostRequests[X, W, C] = HostRequests(device, host, self._thread)
        self.normed: X | None = None
        """What the router has read of the layer whose experts come next, which may have submitted the request."""
        self._submitted: ExpertRequest | None = None
        self._by_router: set[str] = set()  # layers whose experts read what their router has read

    def close(self) -> None:  # stops the thread
        self._thread.shutdown()

    # Weights

    def stack(self, tensor: Tensor) -> Stack[W]:
        """A stack's weights, each where it belongs."""
        count, slots = tensor.shape[0], self._slots_of(tensor)
        if not 0 <= slots <= count:
            raise ValueError(f"{slots} slots for {count} experts of {tensor.name}")
        if self._is_whole(tensor):
            stack: Stack[W] = Stack(tensor, self._device.matrix(tensor), None, slots)
        else:
            there = self._device.expert_slots(tensor, slots) if slots else None
            stack = Stack(tensor, there, self._host.matrix(tensor), slots)
        self._layers.setdefault(stack.layer, []).append(stack)
        return stack

    def repacks(self, tensor: Tensor) -> bool:  # as the op set that has the whole stack
        owner = self._device if self._is_whole(tensor) else self._host
        return owner.repacks(tensor)

    def _is_whole(self, tensor: Tensor) -> bool:
        """Whether the device has all experts of a stack, and the host none."""
        return self._slots_of(tensor) == tensor.shape[0]

    @property
    def on_host(self) -> bool:
        """Whether the host computes any."""
        return any(stacks[0].host is not None for stacks in self._layers.values())

    @property
    def residency(self) -> Residency | None:
        """Which experts have slots, where any come and go; known from the first pass on."""
        return self._slots.residency if self._slots else None

    # A pass

    def begin(self, tokens: int = 1) -> None:
        """Before a pass of so many tokens: experts move, and what a pass that failed has left is forgotten.

        While a prompt streams no other upload begins: the link is the prompt's, and its end says who is wanted.
        """
        self._requests.tell()
        self._pass.begin()
        if self._slots is None:
            adapting = [stacks for stacks in self._layers.values() if stacks[0].adapts]
            self._slots = ExpertSlots(self._device, adapting)
        streams = self._streams(tokens) and not self.host_rests
        self._slots.move(begins=not (self.host_rests or streams))
        self._stream_ahead(tokens if streams else 0)

    def _stream_ahead(self, tokens: int) -> None:
        """The device begins to fetch what a chunk of so many tokens will need of every layer, before a router chooses."""
        layers = []
        for gate, up, down, *_ in self._layers.values() if tokens else ():
            if gate.host is not None:
                assert self._slots is not None, "made by `begin`"
                experts = self._slots.absent(gate)
                layers.append(StreamedLayer((gate.tensor, up.tensor, down.tensor), experts))
        if layers or self._fetching:
            self._device.stream(layers, tokens)
        self._fetching = bool(layers)

    def finish(self) -> None:
        """The device has done a pass: what it chose counts, what failed is raised."""
        if not self._pass.finish():
            return
        self._requests.check()
        if self._slots is not None and self._slots.layers:
            self._slots.residency.token(self._requests.chosen(self._slots.layers))

    def add(self, x: X, ids: X, weights: X, routed: Routed[W], residual: X) -> None:
        """residual += the experts; the host's when `join` is called."""
        self.join()
        self._pass.require_running()
        if routed.gate.host is None:
            self._on_device(x, ids, weights, routed, residual)
        elif self._device.capturing:
            self._submit(x, ids, weights, routed, residual)
        else:
            self._op_by_op(x, ids, weights, routed, residual)

    def join(self) -> None:
        """Adds what the host has computed to the residual that waits for it."""
        owed = self._pass.take()
        if owed is None:
            return
        if owed.request is not None:
            owed.complete()
            self._device.wait(owed.request, owed.residual)
        elif isinstance(owed, Computing):
            self._device.add(self._device.from_numpy(owed.work.result()), owed.residual)

    def join_norm(self, residual: X, norm: W, eps: float) -> X | None:
        """The norm of a residual that waits for a request's result, with that in it; None: `join` has added it."""
        owed = self._pass.owed
        if owed is None or owed.request is None or owed.residual is not residual:
            self.join()
            return None
        owed.complete()
        self._pass.take()
        return self._device.wait_norm(owed.request, residual, norm, eps)

    def _on_device(self, x: X, ids: X, weights: X, routed: Routed[W], residual: X) -> None:
        (gate, up, down), biases = routed.each(lambda stack: stack.device)
        assert gate is not None and up is not None and down is not None
        more = biases, routed.activation
        self._device.moe_add(x, ids, weights, gate, up, down, residual, *more)

    def _resident(self, x: X, ids: X, weights: X, routed: Routed[W], residual: X) -> None:
        """Those of the experts that have a slot."""
        assert self._slots is not None, "made by `begin`"
        (gate, up, down), biases = routed.each(lambda stack: stack.device)
        assert gate is not None and up is not None and down is not None
        slots, more = self._slots.table(routed.gate), (biases, routed.activation)
        self._device.resident_moe_add(x, ids, weights, slots, gate, up, down, residual, *more)

    # Op by op

    def _op_by_op(self, x: X, ids: X, weights: X, routed: Routed[W], residual: X) -> None:
        """The host begins with its experts and goes on while the device computes its own."""
        device = self._device
        chosen: Any = device.to_numpy(ids)
        request = None
        if len(chosen) == 1 and device.host_sync != "none":
            request = self._request(routed, chosen.shape[1])
            if x is self.normed:
                self._by_router.add(routed.gate.layer)
        absent, slots = chosen, None
        if routed.gate.adapts:
            assert self._slots is not None, "made by `begin`"
            slots = self._slots.of(routed.gate)[chosen]
            if not self.host_rests:
                self._slots.chunk(routed.gate, chosen)
            absent = np.where(slots >= 0, -1, chosen).astype(np.int32)
        if (absent >= 0).any() and not self.host_rests:
            if self._streams(len(chosen)):
                self._streamed(x, device.from_numpy(absent), weights, routed, residual)
            else:
                rows = device.to_numpy(x), absent, device.to_numpy(weights)
                work = self._thread.submit(self._compute, *rows, routed)
                self._pass.owe(Computing(work, residual, request))
        # What a capture will launch is launched before it, wanted or not: the driver loads no kernel
        # while it captures (CUDA error 900 out of Triton's load_binary).
        tried = self.host_rests or (len(chosen) == 1 and device.host_sync != "none")
        if slots is not None and (tried or (slots >= 0).any()):
            self._resident(x, ids, weights, routed, residual)

    def _streamed(self, x: X, ids: X, weights: X, routed: Routed[W], residual: X) -> None:
        (gate, up, down), biases = routed.each(lambda stack: stack.tensor)
        more = biases, routed.activation
        self._device.stream_moe_add(x, ids, weights, gate, up, down, residual, *more)

    def _compute(self, x: Floats, ids: Any, weights: Floats, routed: Routed[W]) -> Floats:
        total: Floats = np.zeros_like(x)
        (gate, up, down), biases = routed.each(lambda stack: stack.host)
        self._host.moe_add(x, ids, weights, gate, up, down, total, biases, routed.activation)
        return total

    def _streams(self, tokens: int) -> bool:
        return self.stream_from is not None and tokens >= self.stream_from

    def measure_uploads(self) -> None:
        """Once, when weights are loaded and no token was counted: learn how fast experts come to the device."""
        self.begin()
        if self._slots is not None:
            self._slots.measure()

    def time_chunk(self, tokens: int, top_k: int) -> tuple[float, float] | None:
        """Seconds that a layer's experts take for a chunk: on the host, and streamed through the device.

        None where no layer has experts on the host. Kernels are compiled with one layer and timed with
        another, whose weights then come from where they would for a prompt.
        """
        layers = [stacks for stacks in self._layers.values() if stacks[0].host is not None]
        if not layers:
            return None
        first, other = layers[-1], layers[0]
        x, ids, weights = even_chunk(first[0].tensor, tokens, top_k)
        seconds = []
        for run in (self._compute, self._stream):
            for gate, up, down, *_ in (first, other):
                started = time.perf_counter()
                run(x, ids, weights, Routed(gate, up, down))
            seconds.append(time.perf_counter() - started)
        return seconds[0], seconds[1]

    def try_streaming(self, tokens: int, top_k: int) -> None:
        """Stream one layer's experts for a chunk of so many tokens."""
        gate, up, down, *_ = next(s for s in self._layers.values() if s[0].host is not None)
        self._stream(*even_chunk(gate.tensor, tokens, top_k), Routed(gate, up, down))

    def _stream(self, x: Floats, ids: Any, weights: Floats, routed: Routed[W]) -> None:
        device = self._device
        total = device.from_numpy(np.zeros_like(x))
        there, chosen, shares = (device.from_numpy(values) for values in (x, ids, weights))
        self._streamed(there, chosen, shares, routed, total)
        device.to_numpy(total)

    # Captured

    def _request(self, routed: Routed[W], top_k: int) -> ExpertRequest:
        stacks, biases = routed.each(lambda stack: stack.host)
        gate = routed.gate
        slots = self._slots.of(gate) if self._slots and gate.adapts else None
        experts = stacks, biases, routed.activation
        return self._requests.request(gate.layer, experts, top_k, slots)

    def _submit(self, x: X, ids: X, weights: X, routed: Routed[W], residual: X) -> None:
        """Submits first, so that the host computes while the device does."""
        chosen: Any = ids
        request = self._request(routed, chosen.shape[1])
        if request is not self._submitted:
            self._device.submit(request, x, ids, weights)
        self._submitted = None
        if routed.gate.adapts:
            self._resident(x, ids, weights, routed, residual)
        self._pass.owe(Submitted(request, residual))

    def submitted_by_router(self, layer: str, x: Any) -> ExpertRequest | None:
        """The request that a layer's router is to submit itself for one token, if it reads what the experts read."""
        known = len(x) == 1 and layer in self._by_router
        self._submitted = self._requests.made(layer) if known else None
        return self._submitted

    def captured(self) -> None:
        """A pass was captured: it is what `replay` will repeat."""
        self._pass.require_running()
        self._requests.captured(self._layers)

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Inside, the device launches the captured pass; the host serves its requests beside that."""
        with self._pass.replay(), self._requests.served():
            yield

    def watch(self, rows: Rows | None) -> None:  # as `kernels.timing.Watched` says
        self._requests.watch(rows)
        if isinstance(self._host, Watched):
            self._host.watch(rows)
