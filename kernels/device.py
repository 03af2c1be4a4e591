"""What an op set with a memory of its own offers beyond the ops; a hybrid forward pass is built on it.

`kernels.gpu.gpu_ops.GpuOps` is one; the tests simulate another over the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol

from kernels.ops import Activation, Biases, C, Floats, Ints, Ops, Routing, Tensor
from kernels.recurrent import W, X
from kernels.timing import Rows

HostSync = Literal["stream memory operations", "host functions", "none"]
"""How captured work on a device gets experts from the host: flags that the device's stream writes and
waits for, functions that it calls on the host, or not at all: then nothing is captured."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a device as its driver counts them: what other programs hold is not free."""

    free: int
    total: int


class DeviceMemoryError(MemoryError):
    """The device has no room for what was asked of it."""


@dataclass(frozen=True, slots=True)
class Copy(Generic[W]):
    """One expert of a stack of a file, and the slot that it is to fill."""

    weights: W
    """Made by `expert_slots`."""
    slot: int
    tensor: Tensor
    """The file's stack, (experts, rows, cols)."""
    expert: int


@dataclass(frozen=True, slots=True)
class StreamedLayer:
    """Experts that a pass will need and that are not on the device, the likeliest first."""

    tensors: tuple[Tensor, Tensor, Tensor]
    """The file's gates, ups and downs."""
    experts: Sequence[int]


class ExpertRequest(Protocol):
    """One layer's request to the host, and its result: arrays that both sides read and write.

    `kernels.cpu.expert_requests` makes them in memory that `DeviceOps.shared` gives.
    """

    inputs: Floats
    """(hidden + 2 * top_k,): x, weights and ids, whose views follow: a device may copy all of them at once."""
    x: Floats
    """(1, hidden)"""
    ids: Ints
    """(1, top_k)"""
    weights: Floats
    """(1, top_k)"""
    result: Floats
    """(1, hidden)"""
    submitted: Ints
    """(1,): 1 once x, ids and weights are there; the host lowers it."""
    completed: Ints
    """(1,): 1 once the result is there; the device lowers it."""
    address: int
    """Of the native struct, for a host function."""


class DeviceOps(Ops[X, W, C], Protocol[X, W, C]):
    """An op set on a device. Ops are done in the order of their calls, but maybe later.

    What needs memory raises `DeviceMemoryError` where there is none.
    """

    @property
    def host_sync(self) -> HostSync:
        """How captured passes synchronise with the host here."""
        ...

    def close(self) -> None:
        """End what goes on beside the ops."""
        ...

    def watch(self, rows: Rows | None) -> None:
        """As `kernels.timing.Watched` says, of captured passes. Called inside `active`."""
        ...

    def choices(self) -> Ints:
        """As `kernels.choices.Chooses` says, of passes of one token."""
        ...

    def memory(self) -> DeviceMemory:
        """Free and total bytes. What a pass allocates for its own time is not free: the next one takes it again."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Makes this device the current one of this thread; ops are called inside only."""
        ...

    # Experts that are not all here

    def expert_slots(self, tensor: Tensor, slots: int) -> W:
        """Room for `slots` experts of the stack `tensor`, for `moe_add`: its ids are slots, or -1."""
        ...

    def upload(self, copies: Sequence[Copy[W]]) -> Callable[[], bool]:
        """Begin to fill slots, beside the ops; the result says whether all of them are filled.

        Until then no op may read the slots. Never waits for the device.
        """
        ...

    def stream(self, layers: Sequence[StreamedLayer], tokens: int) -> None:
        """Begin to fetch the experts of these layers through buffers, beside the ops and in this order, for calls of
        `stream_moe_add` with a chunk of so many tokens; what an earlier call left is forgotten. Waits for nobody."""
        ...

    def stream_moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
        residual: X,
        biases: tuple[Tensor, Tensor, Tensor] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        """`moe_add` with experts that are not on the device: they pass through buffers, some at a time.

        ids, (n, top_k), count in the stacks of the file; -1 is no expert. A layer that `stream` was not told of is
        fetched now.
        """
        ...

    def resident_moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        slots: X,
        gate: W,
        up: W,
        down: W,
        residual: X,
        biases: Biases[W] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        """`moe_add` of the experts that have a slot. ids, (n, top_k), count in the stacks of the file.

        `slots`, (1, experts) int32, has every expert's slot, or -1; it is made by `from_numpy` and changed by
        `write`.
        """
        ...

    def write(self, buffer: X, values: Ints) -> None:
        """Put these values into a buffer, in its place; ops called later read them."""
        ...

    def settle(self) -> None:
        """Wait until everything that was asked for is done; raises what failed in it."""
        ...

    # Captured work that needs experts of the host

    @property
    def capturing(self) -> bool:
        """Whether ops called now are captured, to be done when the pass is repeated."""
        ...

    def shared(self, shape: tuple[int, ...], kind: Any) -> Any:
        """A zeroed numpy array of host memory that the device reads and writes in its stream."""
        ...

    def submit(self, request: ExpertRequest, x: X, ids: X, weights: X) -> None:
        """In the device's order of work: fill the request, and raise its flag."""
        ...

    def route_and_submit(
        self,
        request: ExpertRequest,
        x: X,
        norm: W,
        eps: float,
        router: W,
        bias: W | None,
        routing: Routing,
        logit_bias: W | None = None,
        scales: W | None = None,
    ) -> tuple[X, X, X]:
        """`route` of one token, and `submit` of what it gives; outside of a capture only `route`, with the kernels that
        a capture will find loaded."""
        ...

    def wait(self, request: ExpertRequest, residual: X) -> None:
        """In the device's order of work: wait until the request is completed, and add its result to the residual."""
        ...

    def wait_norm(self, request: ExpertRequest, residual: X, norm: W, eps: float) -> X:
        """`wait`, and the norm of the residual then."""
        ...
