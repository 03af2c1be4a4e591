"""How many nodes a layer's captured pass has: what a token's time is counted with.

Launches of the interpreter, torch's kernels and copies, and the driver's calls are counted while a pass is
done as a capture does it, with the host's part left out; two models differ by one layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.plan.gpu_speed import EXPERT_NODES, LAYER_NODES, REQUEST_NODES
from engine.spec.reader import read_spec
from kernels.cpu import CpuOps
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.graph.host_sync import FLAGS
from kernels.gpu.moe import ops
from kernels.hybrid.split import SplitOps
from kernels.ops import Tensor
from tests.kernels.gpu.gpu_cases import ON_GPU, unchecked
from tests.support.tiny import tiny_model
from tests.support.tiny_shapes import SHAPES

pytestmark = pytest.mark.skipif(ON_GPU, reason="launches of the interpreter are counted")
KEY = "qwen3moe", "qwen3moe"
PAGES = page_table(list(range(20)))
NO_KERNEL = [
    "view",
    "empty",
    "split",
    "slice",
    "select",
    "strided",
    "reshape",
    "detach",
    "lift_fresh",
    "alias",
    "expand",
    "squeeze",
    "permute",
    "t.default",
    "_to_copy",
]


class Nodes(TorchDispatchMode):
    """Counts by name; it is the driver too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not any(word in str(func) for word in NO_KERNEL):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    def write(self, stream: int, address: int, value: int) -> None:
        self.names.append("write")

    def wait(self, stream: int, address: int, value: int) -> None:
        self.names.append("wait")

    def call(self, stream: int, function: int, argument: int) -> None:
        raise AssertionError("flags were asked for")


@contextmanager
def launches(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    run = interpreter.GridExecutor.__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nodes.names.append(self.fn.__name__)
        with torch.utils._python_dispatch._disable_current_modes():
            return run(self, *args, **kwargs)

    with monkeypatch.context() as patch, nodes:
        patch.setattr(interpreter.GridExecutor, "__call__", counted)
        yield


class Capturing(GpuOps):
    """A device of 128 processors that believes to capture when it is told so."""

    capturing = False
    host_sync = FLAGS

    def __init__(self) -> None:
        super().__init__("cpu")
        self._processors = 128


def nodes_of(layers: int, slots: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(SHAPES, KEY, replace(SHAPES[KEY], layers=layers))
    folder = tmp_path / str(layers)
    folder.mkdir(exist_ok=True)
    path = tiny_model("qwen3moe", folder, matrix_type="Q4_K", expert_type="Q4_K")
    device, host, nodes = Capturing(), CpuOps(1), Nodes()
    split: SplitOps[Any, Any, Any] = SplitOps(device, host, slots)
    with GGUFFile.open(path) as file:
        model: Transformer[Any, Any, Any] = Transformer(
            file, read_spec(file), split, len(PAGES), 32
        )
    device.streams, token = nodes, np.array([3], np.int32)
    for _ in range(2):  # layers are learnt, then kernels are loaded, as before a capture
        model.forward(token, PAGES, 0)
    device.capturing, nodes.names = True, []
    with launches(nodes, monkeypatch):
        model._pass(model.stages[0], token, PAGES, 1, last=True)
    for each in (split, device, host):
        each.close()
    return nodes.names


def every(tensor: Tensor) -> int:
    return tensor.shape[0]


def half(tensor: Tensor) -> int:
    return tensor.shape[0] // 2


def none(tensor: Tensor) -> int:
    return 0


@pytest.mark.parametrize(("slots", "nodes"), [
    (every, LAYER_NODES + EXPERT_NODES),
    (half, LAYER_NODES + EXPERT_NODES + REQUEST_NODES),
    (none, LAYER_NODES + REQUEST_NODES),
])  # fmt: skip
def test_a_layer_has_few_nodes(
    slots: Any, nodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unchecked():
        one, two = (nodes_of(layers, slots, tmp_path, monkeypatch) for layers in (1, 2))
    assert len(two) - len(one) == nodes <= 10, two


@pytest.mark.parametrize("slots", [half, none])
def test_a_request_fetches_what_follows_it(
    slots: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """q, k, v, output and router of the next layer, and behind the last one the model's output."""
    asked: list[Any] = []
    launch = ops.norm_route

    def noted(*arguments: Any) -> None:
        asked.append(arguments[5])
        launch(*arguments)

    monkeypatch.setattr(ops, "norm_route", noted)
    with unchecked():
        nodes_of(2, slots, tmp_path, monkeypatch)
    first, last = asked[-2:]
    assert [len(first), len(last)] == [5, 1]
    assert asked[:2] == [None, None]  # the first pass does not know yet
