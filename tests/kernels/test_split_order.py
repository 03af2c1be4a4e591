"""A pass over two op sets has one order of steps; any other is an error and not a wrong result."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch

from kernels.cpu import CpuOps
from kernels.hybrid.pass_state import Computing, PassOrderError, PassState, Phase
from kernels.hybrid.split_experts import Routed, SplitExperts
from kernels.ops import Tensor
from kernels.quants import BY_NAME
from tests.support.simulated_device import SimulatedDevice

EXPERTS, HIDDEN, WIDTH, TOP_K = 4, 32, 32, 2


def tensor(part: str, rows: int, cols: int) -> Tensor:
    values = np.ones((EXPERTS, rows, cols), np.float32)
    name = f"blk.0.ffn_{part}_exps.weight"
    return Tensor(name, BY_NAME["F32"], values.shape, values.reshape(-1).view(np.uint8))


class Layer:
    """One layer whose experts are the host's, and a token for it."""

    def __init__(self) -> None:
        self.host, self.device = CpuOps(1), SimulatedDevice()
        self.experts: SplitExperts[Any, Any, Any] = SplitExperts(
            self.device, self.host, lambda tensor: 0
        )
        shapes = ("gate", WIDTH, HIDDEN), ("up", WIDTH, HIDDEN), ("down", HIDDEN, WIDTH)
        self.stacks: Any = Routed(*(self.experts.stack(tensor(*shape)) for shape in shapes))
        self.residual = torch.zeros(1, HIDDEN)

    def add(self) -> None:
        x, weights = torch.ones(1, HIDDEN), torch.ones(1, TOP_K)
        ids = torch.tensor([[0, 1]], dtype=torch.int32)
        with self.device.active():
            self.experts.add(x, ids, weights, self.stacks, self.residual)

    def join(self) -> None:
        with self.device.active():
            self.experts.join()

    def capture(self) -> None:
        """A pass op by op, taken for a captured one: its request is there."""
        self.experts.begin()
        self.add()
        self.join()
        self.experts.captured()

    def serve(self) -> None:
        """The device's part of a replay."""
        (request,) = self.experts._requests._made.values()
        request.submitted[0] = 1


@pytest.fixture
def layer() -> Iterator[Layer]:
    made = Layer()
    yield made
    made.experts.close()
    made.host.close()


def test_the_right_order(layer: Layer) -> None:
    layer.capture()
    assert layer.residual.abs().sum() > 0
    layer.experts.finish()
    for _ in range(2):
        layer.experts.begin()
        with layer.experts.replay():
            layer.serve()
        layer.join()
        layer.experts.finish()


def test_experts_outside_of_a_pass(layer: Layer) -> None:
    with pytest.raises(PassOrderError, match="begins with"):
        layer.add()
    layer.capture()
    layer.experts.begin()
    with layer.experts.replay():
        layer.serve()
        with pytest.raises(PassOrderError, match="begins with"):
            layer.add()
    with pytest.raises(PassOrderError, match="begins with"):  # a launched pass is not one op by op
        layer.add()


def test_a_capture_without_a_pass(layer: Layer) -> None:
    with pytest.raises(PassOrderError, match="begins with"):
        layer.experts.captured()
    layer.experts.begin()
    layer.add()
    with pytest.raises(PassOrderError, match="host computes"):  # its last experts are not joined
        layer.experts.captured()


def test_a_replay_of_nothing(layer: Layer) -> None:
    layer.experts.begin()
    with pytest.raises(PassOrderError, match="captured before"), layer.experts.replay():
        pass
    layer.capture()  # the order is all that was wrong


def test_a_replay_without_its_beginning(layer: Layer) -> None:
    layer.capture()
    layer.experts.begin()
    with layer.experts.replay():
        layer.serve()
    with pytest.raises(PassOrderError, match="REPLAYING cannot follow"), layer.experts.replay():
        pass


def test_a_pass_that_begins_in_a_launch(layer: Layer) -> None:
    layer.capture()
    layer.experts.begin()
    with pytest.raises(PassOrderError, match="RUNNING cannot follow"), layer.experts.replay():
        layer.serve()
        layer.experts.begin()
    layer.capture()  # a failed launch leaves nothing behind


def test_a_second_debt_before_the_first_is_settled() -> None:
    state: PassState[int] = PassState()
    work: Future[Any] = Future()
    state.begin()
    state.owe(Computing(work, 1))
    with pytest.raises(PassOrderError, match="COMPUTING cannot follow"):
        state.owe(Computing(work, 2))
    owed = state.take()
    assert isinstance(owed, Computing) and owed.residual == 1
    assert state.take() is None and state.phase is Phase.RUNNING


def test_a_pass_that_failed_is_forgotten_once_the_host_is_done_with_it() -> None:
    state: PassState[int] = PassState()
    work: Future[Any] = Future()
    work.set_exception(MemoryError())
    state.begin()
    state.owe(Computing(work, 1))
    state.begin()
    assert state.take() is None
    assert not state.finish()
