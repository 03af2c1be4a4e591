"""Routed experts on the host for a device that asks while it works: requests and results in shared memory.

A device's captured pass cannot call Python. It puts a layer's activations and expert ids into an
`ExpertRequest` and raises a flag; one native call serves a token's requests one after another
(`RequestQueue.serve`), or the device calls `kt_serve_request` itself. All that matters about the device
is the memory that it and the host both see.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from typing import Any

import numpy as np

from kernels.cpu import native
from kernels.cpu.buffers import Weight, address, bias_pointers, expect_matrices
from kernels.cpu.context import NativeContext
from kernels.ops import ACTIVATIONS, Activation, Biases, Floats, Ints

PATIENCE = 20.0
"""Seconds without a request after which a device is taken to have failed."""

Shared = Callable[[tuple[int, ...], Any], Any]
"""Makes a zeroed array, (shape, kind), that the device sees too."""


class _Struct(ctypes.Structure):
    """`struct ExpertRequest` of expert_requests.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("context", "gate", "up", "down")),
        *(
            (name, c_void_p)
            for name in ("gate_bias", "up_bias", "down_bias", "x", "ids", "weights")
        ),
        *((name, c_void_p) for name in ("slots", "host_ids", "result", "submitted", "completed")),
        *((name, c_int64) for name in ("top_k", "hidden", "activation", "status", "begun", "done")),
    )


class ExpertRequest:
    """One layer's request and its result (`kernels.device.ExpertRequest`).

    `slots` (experts,) int32 says which experts the device computes itself; None: none.
    """

    def __init__(
        self,
        ops: NativeContext,
        experts: tuple[Weight, Weight, Weight],
        top_k: int,
        slots: Ints | None,
        shared: Shared,
        biases: Biases[Weight] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        gate, up, down = experts
        for each in (gate, up):
            expect_matrices(each, gate.count, gate.rows, gate.cols)
        expect_matrices(down, gate.count, gate.cols, gate.rows)
        if slots is not None and slots.shape != (gate.count,):
            raise ValueError(f"{slots.shape} slots for {gate.count} experts")
        self.inputs: Floats = shared((gate.cols + 2 * top_k,), np.float32)
        x, weights, ids = np.split(self.inputs, [gate.cols, gate.cols + top_k])
        self.x: Floats = x.reshape(1, -1)
        self.weights: Floats = weights.reshape(1, -1)
        self.ids: Ints = ids.view(np.int32).reshape(1, -1)
        self.result: Floats = shared((1, gate.cols), np.float32)
        self.submitted: Ints = shared((1,), np.int32)
        self.completed: Ints = shared((1,), np.int32)
        self._host_ids = np.empty(top_k, dtype=np.int32)
        self._keep = ops, experts, slots, biases
        self._struct = _Struct(
            *(ops._alive(), gate.pointer, up.pointer, down.pointer),
            *bias_pointers(biases, gate, down),
            *(address(array) for array in (self.x, self.ids, self.weights)),
            None if slots is None else address(slots),
            *(address(array) for array in (self._host_ids, self.result)),
            *(address(flag) for flag in (self.submitted, self.completed)),
            *(top_k, gate.cols, ACTIVATIONS.index(activation), 0, 0, 0),
        )
        self.address = ctypes.addressof(self._struct)

    def check(self) -> None:
        """Raise what went wrong in the last result."""
        native.check(self._struct.status)

    @property
    def span(self) -> tuple[int, int]:
        """When the last result was begun and done, in ns of the steady clock."""
        return self._struct.begun, self._struct.done


class RequestQueue:
    """The requests of one token's pass, in the order in which the device submits them."""

    def __init__(self, requests: Sequence[ExpertRequest]) -> None:
        self._requests = list(requests)
        self._pointers = (c_void_p * len(requests))(*(request.address for request in requests))
        self._native = native.load()

    def serve(self, patience: float = PATIENCE) -> None:
        """Compute every request as the device submits it. Raises what a failure means, and
        `TimeoutError` where the device submits nothing."""
        count = len(self._requests)
        native.check(self._native.kt_serve_requests(self._pointers, count, int(patience * 1e9)))

    def release(self) -> None:
        """The device submits nothing more: `serve` goes through, and what it still computes is worthless."""
        for request in self._requests:
            request.submitted[0] = 1

    def clear(self) -> None:
        """Lower all flags. The device must be idle, and nobody serving."""
        for request in self._requests:
            request.submitted[0] = request.completed[0] = 0

    def check(self) -> None:
        """Raise what went wrong in results that the device called for itself."""
        for request in self._requests:
            request.check()
