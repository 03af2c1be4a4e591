"""Two op sets in one forward pass: attention and all that is dense on a device, routed experts on the host.

Knows which op set has which weights, and that the host computes its experts while the device computes
the shared and resident ones. Knows no device: the tests put the reference in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from kernels.ops import C, CacheShape, Floats, Ints, Ops, Rope, Routing, Tensor, W, X

Residency = Callable[[Tensor], Sequence[int]]
"""The experts of a stack of weights that live on the device; the others live on the host."""


@dataclass(frozen=True, slots=True)
class Experts(Generic[W]):
    """A stack of experts, divided. A slot says where an expert stands on its side, or is -1."""

    device: W | None
    host: Any
    device_slots: Ints
    host_slots: Ints


class SplitOps(Generic[X, W, C]):
    """`kernels.ops.Ops` over a device's op set and the host's, whose buffers are numpy arrays.

    Closing it closes both. One thread at a time uses it.
    """

    name = "split"

    def __init__(
        self, device: Ops[X, W, C], host: Ops[Floats, Any, Any], residency: Residency
    ) -> None:
        self._device, self._host, self._residency = device, host, residency
        self._thread = ThreadPoolExecutor(1, "host experts")
        self._pending: tuple[Future[Floats], X] | None = None

    def close(self) -> None:
        """Stop the host's threads and the device's."""
        self._thread.shutdown()
        for ops in (self._host, self._device):
            close = getattr(ops, "close", None)
            if close is not None:
                close()

    # Weights

    def matrix(self, tensor: Tensor) -> W | Experts[W]:
        if not _routed(tensor):
            return self._device.matrix(tensor)
        resident = sorted(set(self._residency(tensor)))
        others = sorted(set(range(tensor.shape[0])) - set(resident))
        return Experts(
            self._device.matrix(_some(tensor, resident)) if resident else None,
            self._host.matrix(_some(tensor, others)) if others else None,
            _slots(resident, tensor.shape[0]),
            _slots(others, tensor.shape[0]),
        )

    def table(self, tensor: Tensor) -> Any:
        return self._host.table(tensor)

    def repacks(self, tensor: Tensor) -> bool:
        on_host = self._host.repacks(tensor)
        if not _routed(tensor):
            return self._device.repacks(tensor)
        resident = len(set(self._residency(tensor)))
        if resident in (0, tensor.shape[0]):
            return on_host if resident == 0 else self._device.repacks(tensor)
        return True  # each side was given a copy of its part

    def vector(self, tensor: Tensor) -> W:
        return self._device.vector(tensor)

    def kv_cache(self, shape: CacheShape) -> C:
        return self._device.kv_cache(shape)

    def copy_page(self, cache: C, source: int, target: int) -> None:
        self._device.copy_page(cache, source, target)

    # Buffers

    def record(self, forward: Callable[[Ints, Ints, int], X]) -> Callable[[Ints, Ints, int], X]:
        return forward

    def embed(self, table: Any, tokens: Ints) -> X:
        return self._device.from_numpy(self._host.embed(table, tokens))

    def last_row(self, x: X) -> X:
        self._join()
        return self._device.last_row(x)

    def from_numpy(self, x: Floats) -> X:
        return self._device.from_numpy(x)

    def to_numpy(self, x: X) -> Floats:
        self._join()
        return self._device.to_numpy(x)

    # Dense ops: the device's, after what the host still owes

    def norm(self, x: X, norm: W, eps: float) -> X:
        self._join()
        return self._device.norm(x, norm, eps)

    def norm_linear(
        self,
        x: X,
        norm: W | None,
        eps: float,
        weights: Sequence[W],
        biases: Sequence[W | None] | None = None,
    ) -> list[X]:
        self._join()
        return self._device.norm_linear(x, norm, eps, weights, biases)

    def linear_add(self, x: X, weight: W, residual: X) -> None:
        self._join()
        self._device.linear_add(x, weight, residual)

    def rope_append(
        self,
        q: X,
        k: X,
        v: X,
        norms: tuple[W, W] | None,
        eps: float,
        rope: Rope,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        self._device.rope_append(q, k, v, norms, eps, rope, cache, layer, pages, start)

    def attention(
        self, q: X, heads: int, scale: float, cache: C, layer: int, pages: Ints, start: int
    ) -> X:
        return self._device.attention(q, heads, scale, cache, layer, pages, start)

    def latent_append(
        self,
        q: X,
        heads: int,
        kv: X,
        norm: W,
        eps: float,
        rope: Rope,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        self._device.latent_append(q, heads, kv, norm, eps, rope, cache, layer, pages, start)

    def latent_attention(
        self,
        q: X,
        heads: int,
        scale: float,
        k_b: W,
        v_b: W,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
    ) -> X:
        return self._device.latent_attention(q, heads, scale, k_b, v_b, cache, layer, pages, start)

    # Feed-forward

    def route(
        self, x: X, norm: W, eps: float, router: W, bias: W | None, routing: Routing
    ) -> tuple[X, X, X]:
        self._join()
        return self._device.route(x, norm, eps, router, bias, routing)

    def moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        gate: Experts[W],
        up: Experts[W],
        down: Experts[W],
        residual: X,
    ) -> None:
        """The host begins with its experts and goes on while the device computes its own."""
        self._join()
        chosen = self._device.to_numpy(ids)
        if (gate.host_slots[chosen] >= 0).any():
            work = self._thread.submit(
                self._host_experts,
                self._device.to_numpy(x),
                np.ascontiguousarray(gate.host_slots[chosen]),
                self._device.to_numpy(weights),
                (gate.host, up.host, down.host),
            )
            self._pending = work, residual
        here: Any = np.ascontiguousarray(gate.device_slots[chosen])
        if (here >= 0).any():
            assert gate.device is not None and up.device is not None and down.device is not None
            resident = gate.device, up.device, down.device
            self._device.moe_add(x, self._device.from_numpy(here), weights, *resident, residual)

    def ffn_add(self, x: X, gate: W, up: W, down: W, residual: X, scaler: W | None = None) -> None:
        self._device.ffn_add(x, gate, up, down, residual, scaler)

    def _host_experts(
        self, x: Floats, ids: Any, weights: Floats, experts: tuple[Any, Any, Any]
    ) -> Floats:
        total: Floats = np.zeros_like(x)
        self._host.moe_add(x, ids, weights, *experts, total)
        return total

    def _join(self) -> None:
        """Adds what the host has computed to the residual that waits for it."""
        if self._pending is None:
            return
        (work, residual), self._pending = self._pending, None
        self._device.add(self._device.from_numpy(work.result()), residual)


def _routed(tensor: Tensor) -> bool:
    return "_exps." in tensor.name


def _some(tensor: Tensor, experts: Sequence[int]) -> Tensor:
    """The stack of these experts; the whole one as it is."""
    if len(experts) == tensor.shape[0]:
        return tensor
    data = tensor.data.reshape(tensor.shape[0], -1)[list(experts)].reshape(-1)
    return Tensor(tensor.name, tensor.type, (len(experts), *tensor.shape[1:]), data)


def _slots(experts: Sequence[int], count: int) -> Ints:
    slots: Ints = np.full(count, -1, dtype=np.int32)
    slots[list(experts)] = np.arange(len(experts), dtype=np.int32)
    return slots
