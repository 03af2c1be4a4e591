"""Routed experts of which some are on a device and the others on the host: who computes what, and when.

Called op by op, a layer asks the device for the router's choice, and waits; a long chunk's absent
experts may pass through the device's buffers instead. In a captured pass the device puts its questions
into letters, which the host answers while the token runs. Knows no device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic

import numpy as np

from kernels.cpu.cpu_ops import CpuOps
from kernels.cpu.expert_requests import Letter, Letters
from kernels.device import DeviceOps
from kernels.hybrid.expert_slots import ExpertSlots, Stack
from kernels.hybrid.residency import Residency
from kernels.ops import C, Floats, Ops, Tensor, W, X
from kernels.timing import HOST, OpTimes, Rows, Watched

Slots = Callable[[Tensor], int]
"""How many experts of a stack have a place on the device. All of them: the host has none of the layer's;
fewer: the host has every one."""

Stacks = tuple[Stack[W], Stack[W], Stack[W]]
"""gate, up, down"""


class SplitExperts(Generic[X, W, C]):
    """The experts of a `kernels.hybrid.split.SplitOps`. One thread at a time uses them."""

    def __init__(
        self, device: DeviceOps[X, W, C], host: Ops[Floats, Any, Any], slots: Slots
    ) -> None:
        self._device, self._host, self._slots_of = device, host, slots
        self.stream_from: int | None = None
        """Tokens of a chunk from which on absent experts are computed on the device; None: never."""
        self.host_rests = False
        """Nothing is computed on the host, and results are wrong: to try the device alone."""
        self._layers: dict[str, list[Stack[W]]] = {}
        self._slots: ExpertSlots[X, W, C] | None = None
        self._thread = ThreadPoolExecutor(1, "host experts")
        self._pending: tuple[Future[Floats], X] | None = None
        self._posted: tuple[Letter, X] | None = None
        self._letters: dict[str, Letter] = {}
        self._post_office = Letters([])
        self._answered = False
        self._times: OpTimes | None = None
        self._untold = False

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown()

    # Weights

    def stack(self, tensor: Tensor) -> Stack[W]:
        """A stack's weights, each where it belongs."""
        count, slots = tensor.shape[0], self._slots_of(tensor)
        if not 0 <= slots <= count:
            raise ValueError(f"{slots} slots for {count} experts of {tensor.name}")
        if slots == count:
            stack: Stack[W] = Stack(tensor, self._device.matrix(tensor), None, slots)
        else:
            there = self._device.expert_slots(tensor, slots) if slots else None
            stack = Stack(tensor, there, self._host.matrix(tensor), slots)
        self._layers.setdefault(stack.layer, []).append(stack)
        return stack

    def repacks(self, tensor: Tensor) -> bool:
        """As the op set that has the whole stack says."""
        whole = self._slots_of(tensor) == tensor.shape[0]
        return self._device.repacks(tensor) if whole else self._host.repacks(tensor)

    @property
    def on_host(self) -> bool:
        """Whether the host computes any."""
        return any(stacks[0].host is not None for stacks in self._layers.values())

    @property
    def residency(self) -> Residency | None:
        """Which experts have slots, where any come and go; known from the first pass on."""
        return self._slots.residency if self._slots else None

    # A pass

    def begin(self) -> None:
        """Before a pass: experts move, and what a pass that failed has left is forgotten."""
        self._tell()
        if self._pending is not None:
            wait([self._pending[0]])
        self._pending = self._posted = None
        if self._slots is None:
            adapting = [stacks for stacks in self._layers.values() if stacks[0].adapts]
            self._slots = ExpertSlots(self._device, adapting)
        self._slots.move()

    def finish(self) -> None:
        """The device has done a pass: what it chose is counted, and what failed is raised."""
        if not self._answered:
            return
        self._answered = False
        self._post_office.check()
        if self._slots is not None and self._slots.layers:
            chosen = [self._letters[layer].ids for layer in self._slots.layers]
            self._slots.residency.token(np.concatenate(chosen))

    def add(self, x: X, ids: X, weights: X, stacks: Stacks[W], residual: X) -> None:
        """residual += the experts; the host's when `join` is called."""
        self.join()
        if stacks[0].host is None:
            self._on_device(x, ids, weights, stacks, residual)
        elif self._device.capturing:
            self._post(x, ids, weights, stacks, residual)
        else:
            self._ask(x, ids, weights, stacks, residual)

    def join(self) -> None:
        """Adds what the host has computed to the residual that waits for it."""
        if self._posted is not None:
            (letter, residual), self._posted = self._posted, None
            self._device.collect(letter, residual)
        if self._pending is not None:
            (work, residual), self._pending = self._pending, None
            self._device.add(self._device.from_numpy(work.result()), residual)

    def _on_device(self, x: X, ids: X, weights: X, stacks: Stacks[W], residual: X) -> None:
        gate, up, down = (stack.device for stack in stacks)
        assert gate is not None and up is not None and down is not None
        self._device.moe_add(x, ids, weights, gate, up, down, residual)

    # Op by op

    def _ask(self, x: X, ids: X, weights: X, stacks: Stacks[W], residual: X) -> None:
        """The host begins with its experts and goes on while the device computes its own."""
        device = self._device
        chosen: Any = device.to_numpy(ids)
        if len(chosen) == 1 and device.hand_over != "none":
            self._letter(stacks, chosen.shape[1])
        absent, slots = chosen, None
        if stacks[0].adapts:
            assert self._slots is not None, "a pass begins with `embed`"
            slots = self._slots.of(stacks[0])[chosen]
            if not self.host_rests:
                self._slots.chunk(stacks[0], chosen)
            absent = np.where(slots >= 0, -1, chosen).astype(np.int32)
        if (absent >= 0).any() and not self.host_rests:
            if self.stream_from is not None and len(chosen) >= self.stream_from:
                gate, up, down = (stack.tensor for stack in stacks)
                there = device.from_numpy(absent)
                device.stream_moe_add(x, there, weights, gate, up, down, residual)
            else:
                rows = device.to_numpy(x), absent, device.to_numpy(weights)
                self._pending = self._thread.submit(self._compute, *rows, stacks), residual
        # What a capture will launch is launched before it, wanted or not: the driver loads no kernel
        # while it captures (CUDA error 900 out of Triton's load_binary).
        tried = self.host_rests or (len(chosen) == 1 and device.hand_over != "none")
        if slots is not None and (tried or (slots >= 0).any()):
            assert self._slots is not None
            here = device.look_up(ids, self._slots.table(stacks[0]))
            self._on_device(x, here, weights, stacks, residual)

    def _compute(self, x: Floats, ids: Any, weights: Floats, stacks: Stacks[W]) -> Floats:
        total: Floats = np.zeros_like(x)
        gate, up, down = (stack.host for stack in stacks)
        self._host.moe_add(x, ids, weights, gate, up, down, total)
        return total

    def time_chunk(self, tokens: int, top_k: int) -> tuple[float, float] | None:
        """Seconds that a layer's experts take for a chunk: on the host, and streamed through the device.

        None where no layer has experts on the host. Kernels are compiled with one layer and timed with
        another, whose weights then come from where they would for a prompt.
        """
        layers = [stacks for stacks in self._layers.values() if stacks[0].host is not None]
        if not layers:
            return None
        first, other = layers[-1], layers[0]
        rng = np.random.default_rng(0)
        experts, _, hidden = first[0].tensor.shape
        x = rng.standard_normal((tokens, hidden), dtype=np.float32)
        ids = rng.random((tokens, experts)).argsort(axis=1)[:, :top_k].astype(np.int32)
        weights = np.full((tokens, top_k), 1 / top_k, dtype=np.float32)
        seconds = []
        for run in (self._compute, self._stream):
            for stacks in (first, other):
                gate, up, down = stacks
                started = time.perf_counter()
                run(x, ids, weights, (gate, up, down))
            seconds.append(time.perf_counter() - started)
        return seconds[0], seconds[1]

    def _stream(self, x: Floats, ids: Any, weights: Floats, stacks: Stacks[W]) -> None:
        device = self._device
        total = device.from_numpy(np.zeros_like(x))
        gate, up, down = (stack.tensor for stack in stacks)
        there, chosen, shares = (device.from_numpy(values) for values in (x, ids, weights))
        device.stream_moe_add(there, chosen, shares, gate, up, down, total)
        device.to_numpy(total)

    # Captured

    def _letter(self, stacks: Stacks[W], top_k: int) -> Letter:
        """A layer's, made when its first token runs op by op: nothing may be allocated in a capture."""
        layer = stacks[0].layer
        if layer not in self._letters:
            assert isinstance(self._host, CpuOps), "letters are answered by the native library"
            gate, up, down = (stack.host for stack in stacks)
            slots = self._slots.of(stacks[0]) if self._slots and stacks[0].adapts else None
            experts = gate, up, down
            self._letters[layer] = Letter(self._host, experts, top_k, slots, self._device.shared)
        return self._letters[layer]

    def _post(self, x: X, ids: X, weights: X, stacks: Stacks[W], residual: X) -> None:
        """Asks first, so that the host computes while the device does."""
        chosen: Any = ids
        letter = self._letter(stacks, chosen.shape[1])
        self._device.post(letter, x, ids, weights)
        if stacks[0].adapts:
            assert self._slots is not None, "a pass begins with `embed`"
            here = self._device.look_up(ids, self._slots.table(stacks[0]))
            self._on_device(x, here, weights, stacks, residual)
        self._posted = letter, residual

    def captured(self) -> None:
        """A pass was captured: its letters are all there are, in the order of the layers."""
        made = self._letters  # in the order of first use: a chunk's last layer has one row too
        self._letters = {layer: made[layer] for layer in self._layers if layer in made}
        self._post_office = Letters(list(self._letters.values()))

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Inside, the device begins to repeat a token; the host does its part beside that.

        Not after it in the same thread: launching may wait for room in the device's queue, and the calls
        behind it for memory or a kernel to be loaded, which may wait for the device, and it waits for us.
        """
        if self._device.hand_over == "stream memory operations":
            work = self._thread.submit(self._post_office.follow)
            try:
                yield
                work.result()
            except BaseException:
                # No flag may stay up: the next token's first answer would be to this one's question.
                self._post_office.release()
                wait([work])
                self._device.settle()
                self._post_office.clear()
                raise
        else:
            yield
        self._answered = self._untold = True

    # Times

    def watch(self, rows: Rows | None) -> None:
        """As `kernels.timing.Watched` says."""
        self._tell()
        self._untold = False
        self._times = None if rows is None else rows.row(HOST)
        if isinstance(self._host, Watched):
            self._host.watch(rows)

    def _tell(self) -> None:
        """The last captured pass's answers, which are all there once its result was read."""
        if self._times is None or not self._untold:
            return
        self._untold = False
        for layer, letter in self._letters.items():
            self._times.ops(("moe_add",), (int(layer.rpartition(".")[2]),), letter.span)
