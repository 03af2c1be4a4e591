"""Experts that a device requests: the same sums as `moe_add`, and no request left uncompleted."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from kernels.cpu import CpuOps
from kernels.cpu.expert_requests import ExpertRequest, RequestQueue
from kernels.ops import Ints, Tensor
from kernels.quants import BY_NAME

EXPERTS, HIDDEN, WIDTH, TOP_K, LAYERS = 6, 64, 32, 3, 4
RNG = np.random.default_rng(3)


def stack(rows: int, cols: int) -> Tensor:
    values = RNG.standard_normal((EXPERTS, rows, cols)).astype(np.float32)
    return Tensor("x", BY_NAME["F32"], values.shape, values.reshape(-1).view(np.uint8))


class Host:
    """A host with one stack of experts a layer, and the device's end of every request."""

    def __init__(self, slots: Ints | None = None) -> None:
        self.ops = CpuOps(2)
        self.layers: list[Any] = [
            tuple(map(self.ops.matrix, (stack(WIDTH, HIDDEN), stack(WIDTH, HIDDEN), stack(HIDDEN, WIDTH))))
            for _ in range(LAYERS)
        ]  # fmt: skip
        self.requests = [
            ExpertRequest(self.ops, layer, TOP_K, slots, np.zeros) for layer in self.layers
        ]
        for request in self.requests:
            request.x[:] = RNG.standard_normal(request.x.shape)
            request.weights[:] = RNG.random(request.weights.shape)
            request.ids[0] = RNG.permutation(EXPERTS)[:TOP_K]

    def submit(self) -> None:
        """What a device does: raise a flag, wait for the other and lower it."""
        for request in self.requests:
            request.submitted[0] = 1
            while not request.completed[0]:
                time.sleep(0)
            request.completed[0] = 0

    def wanted(self, number: int, ids: Ints) -> Any:
        request, total = self.requests[number], np.zeros((1, HIDDEN), np.float32)
        self.ops.moe_add(request.x, ids, request.weights, *self.layers[number], total)
        return total


def exchange(host: Host) -> None:
    device = threading.Thread(target=host.submit)
    device.start()
    RequestQueue(host.requests).serve(60.0)
    device.join(60.0)
    assert not device.is_alive()


def test_every_layer_gets_its_own_experts() -> None:
    host = Host()
    for _ in range(3):  # tokens
        exchange(host)
        for number, request in enumerate(host.requests):
            assert np.array_equal(request.result, host.wanted(number, request.ids))
            begun, done = request.span
            assert 0 < begun <= done


def test_experts_with_a_slot_are_left_to_the_device() -> None:
    slots = np.array([-1, 0, -1, 1, -1, -1], np.int32)
    host = Host(slots)
    exchange(host)
    for number, request in enumerate(host.requests):
        here = np.where(slots[request.ids] >= 0, -1, request.ids).astype(np.int32)
        assert np.array_equal(request.result, host.wanted(number, here))
    slots[:] = 0  # as residency changes between tokens
    exchange(host)
    assert all(not request.result.any() for request in host.requests)


def test_a_wrong_id_is_an_error_and_the_device_goes_on() -> None:
    host = Host()
    host.requests[1].ids[0, 0] = EXPERTS
    with pytest.raises(IndexError, match="out of range"):
        exchange(host)
    host.requests[1].ids[0, 0] = 0
    exchange(host)


def test_a_device_that_submits_nothing_is_given_up() -> None:
    host = Host()
    with pytest.raises(TimeoutError, match="did not ask"):
        RequestQueue(host.requests).serve(0.01)
    assert all(request.completed[0] for request in host.requests)  # should it come back, it ends


def test_a_device_may_call_for_a_result_itself() -> None:
    from kernels.cpu import native

    host = Host()
    request = host.requests[0]
    native.load().kt_serve_request(request.address)
    assert np.array_equal(request.result, host.wanted(0, request.ids))
    request.check()
    request.ids[0, 0] = -2
    native.load().kt_serve_request(request.address)
    with pytest.raises(IndexError):
        RequestQueue(host.requests).check()


def test_experts_of_other_shapes_are_refused() -> None:
    host = Host()
    gate, up, down = host.layers[0]
    with pytest.raises(ValueError, match="wanted"):
        ExpertRequest(host.ops, (gate, down, up), TOP_K, None, np.zeros)
    with pytest.raises(ValueError, match="slots"):
        ExpertRequest(host.ops, (gate, up, down), TOP_K, np.zeros(3, np.int32), np.zeros)
