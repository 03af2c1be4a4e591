"""Two op sets in one forward pass: attention and all that is dense on a device, routed experts on both.

Everything but routed experts is passed on to the device; those are `kernels.hybrid.split_experts`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic

from kernels.device import DeviceMemory, DeviceOps
from kernels.hybrid.expert_slots import Routed, Stack
from kernels.hybrid.residency import Residency
from kernels.hybrid.row_ops import RowOps
from kernels.hybrid.split_experts import Slots, SplitExperts
from kernels.ops import (
    Activation,
    Biases,
    Bytes,
    C,
    CacheShape,
    Floats,
    Forward,
    Ints,
    Ops,
    PassInput,
    Routing,
    Tensor,
)
from kernels.recurrent import State, StateShape, W, X
from kernels.timing import Rows


class SplitOps(RowOps[X, W, C]):
    """`kernels.ops.Ops` over a device's op set and the host's, whose buffers are numpy arrays. One thread at a
    time uses it. A pass that fails on the host raises what failed there."""

    name = "split"

    def __init__(
        self, device: DeviceOps[X, W, C], host: Ops[Floats, Any, Any], slots: Slots
    ) -> None:
        self._device = device
        self._experts = SplitExperts(device, host, slots)
        self._routers: dict[int, tuple[W, str]] = {}  # by identity; and their layers, `blk.3`

    def close(self) -> None:
        """Stop its thread. The op sets are their owner's to close."""
        self._experts.close()

    @property
    def residency(self) -> Residency | None:
        """See `SplitExperts`."""
        return self._experts.residency

    def stream_from(self, tokens: int | None) -> None:
        """Chunks of so many tokens compute absent experts on the device; None: none do."""
        self._experts.stream_from = tokens

    @contextmanager
    def device_alone(self) -> Iterator[None]:
        """Inside, passes op by op leave out what the host computes."""
        self._experts.host_rests = True
        try:
            yield
        finally:
            self._experts.host_rests = False

    def time_chunk(self, tokens: int, top_k: int) -> tuple[float, float] | None:
        """As `SplitExperts` does."""
        return self._experts.time_chunk(tokens, top_k)

    def try_streaming(self, tokens: int, top_k: int) -> None:
        """Stream one layer's experts for a chunk of so many tokens, to make the buffers that it needs."""
        self._experts.try_streaming(tokens, top_k)

    def measure_uploads(self) -> None:
        """At load: learn how fast experts come to the device."""
        self._experts.measure_uploads()

    def watch(self, rows: Rows | None) -> None:
        """Captured passes, the requests that the host serves for them, and the host's ops."""
        self._experts.watch(rows)
        with self._device.active():
            self._device.watch(rows)

    def memory(self) -> DeviceMemory:  # the device's
        return self._device.memory()

    def active(self) -> AbstractContextManager[None]:
        """The device, current."""
        return self._device.active()

    # Weights

    def matrix(self, tensor: Tensor) -> W | Stack[W]:
        if _routed(tensor):
            return self._experts.stack(tensor)
        matrix = self._device.matrix(tensor)
        layer, is_router, _ = tensor.name.partition(".ffn_gate_inp.")
        if is_router:
            self._routers[id(matrix)] = matrix, layer
        return matrix

    def table(self, tensor: Tensor) -> W:
        return self._device.table(tensor)

    def repacks(self, tensor: Tensor) -> bool:
        owner = self._experts if _routed(tensor) else self._device
        return owner.repacks(tensor)

    def vector(self, tensor: Tensor) -> W:
        return self._device.vector(tensor)

    def kv_cache(self, shape: CacheShape) -> C:
        return self._device.kv_cache(shape)

    def copy_page(self, cache: C, source: int, target: int) -> None:
        self._device.copy_page(cache, source, target)

    def read_page(self, cache: C, page: int) -> Bytes:
        return self._device.read_page(cache, page)

    def write_page(self, cache: C, page: int, data: Bytes) -> None:
        self._device.write_page(cache, page, data)

    def recurrent_state(self, shape: StateShape) -> State:
        return self._device.recurrent_state(shape)

    def clear_state(self, state: State) -> None:
        self._device.clear_state(state)

    def copy_state(self, state: State, source: int, target: int) -> None:
        self._device.copy_state(state, source, target)

    def read_state(self, state: State, slot: int) -> Bytes:
        return self._device.read_state(state, slot)

    def write_state(self, state: State, slot: int, data: Bytes) -> None:
        self._device.write_state(state, slot, data)

    # Passes and buffers

    def record(self, forward: Forward[X]) -> Forward[X]:
        """Captured on the device, where it can synchronise with the host by itself or need not."""
        on_host = self._experts.on_host
        if on_host and self._device.host_sync == "none":
            return forward

        def complete(pass_input: PassInput, pages: Ints, start: int) -> X:
            x = forward(pass_input, pages, start)
            self._experts.join()  # a stage may end with experts
            return x

        captured = self._device.record(complete)
        if captured is complete or not on_host:
            return captured
        return _Step(self._experts, captured)

    def embed(self, table: W, tokens: Ints, factor: float = 1.0) -> X:
        self._begin(len(tokens))
        return self._device.embed(table, tokens, factor)

    def last_row(self, x: X) -> X:
        self._experts.join()
        return self._device.last_row(x)

    def set_hidden(self, rows: Floats) -> X:
        self._begin(len(rows))
        return self._device.set_hidden(rows)

    def from_numpy(self, x: Floats) -> X:
        return self._device.from_numpy(x)

    def _begin(self, tokens: int) -> None:
        if not self._device.capturing:
            self._experts.begin(tokens)

    def to_numpy(self, x: X) -> Floats:
        self._experts.join()
        rows = self._device.to_numpy(x)
        self._experts.finish()
        return rows

    # Dense ops: the device's, after what the host still owes

    def norm_linear(
        self,
        x: X,
        norm: W | None,
        eps: float,
        weights: Sequence[W],
        biases: Sequence[W | None] | None = None,
    ) -> list[X]:
        normed = None if norm is None else self._experts.join_norm(x, norm, eps)
        if normed is not None:
            x, norm = normed, None
        self._experts.join()
        return self._device.norm_linear(x, norm, eps, weights, biases)

    def linear_add(self, x: X, weight: W, residual: X, bias: W | None = None) -> None:
        self._experts.join()
        self._device.linear_add(x, weight, residual, bias)

    # Attention and what stands in its place: the device's, with what `Ops` says that they are told

    def rope_append(self, *arguments: Any, **named: Any) -> None:
        self._device.rope_append(*arguments, **named)

    def attention(self, *arguments: Any, **named: Any) -> X:
        return self._device.attention(*arguments, **named)

    def latent_append(self, *arguments: Any, **named: Any) -> None:
        self._device.latent_append(*arguments, **named)

    def latent_attention(self, *arguments: Any, **named: Any) -> X:
        return self._device.latent_attention(*arguments, **named)

    def delta_net(self, *arguments: Any, **named: Any) -> X:
        return self._device.delta_net(*arguments, **named)

    def sigmoid_gate(self, x: X, gate: X) -> None:
        self._device.sigmoid_gate(x, gate)

    # Feed-forward

    def route(
        self,
        x: X,
        norm: W,
        eps: float,
        router: W,
        bias: W | None,
        routing: Routing,
        logit_bias: W | None = None,
        scales: W | None = None,
    ) -> tuple[X, X, X]:
        self._experts.join()
        arguments = x, norm, eps, router, bias, routing, logit_bias, scales
        _, layer = self._routers.get(id(router), (router, ""))
        request = self._experts.submitted_by_router(layer, x)
        if request is None:
            routed = self._device.route(*arguments)
        else:
            routed = self._device.route_and_submit(request, *arguments)
        self._experts.normed = routed[0]
        return routed

    def moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        gate: Stack[W],
        up: Stack[W],
        down: Stack[W],
        residual: X,
        biases: Biases[Stack[W]] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        layer = Routed(gate, up, down, biases, activation)
        self._experts.add(x, ids, weights, layer, residual)

    def ffn_add(
        self,
        x: X,
        gate: W,
        up: W,
        down: W,
        residual: X,
        scaler: W | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        self._device.ffn_add(x, gate, up, down, residual, scaler, activation)


class _Step(Generic[X]):
    """A token's pass: op by op the first time, which captures it; then replayed, with the host's experts."""

    def __init__(self, experts: Any, forward: Forward[X]) -> None:
        self._experts, self._forward = experts, forward
        self._captured = False

    def __call__(self, pass_input: PassInput, pages: Ints, start: int) -> X:
        if not self._captured:
            result = self._forward(pass_input, pages, start)
            self._experts.captured()
            self._captured = True
            return result
        self._experts.begin()
        with self._experts.replay():
            return self._forward(pass_input, pages, start)


def _routed(tensor: Tensor) -> bool:
    return "_exps." in tensor.name


_: type[Ops[Any, Any, Any]] = SplitOps
