"""Delta nets with random inputs, what the oracle makes of them, and what `CpuOps` makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from kernels.cpu import CpuOps
from kernels.ops import Floats
from kernels.recurrent import DeltaNet, DeltaNetWeights, StateShape
from tests.kernels.cpu_cases import REFERENCE, normal, relative_error, tensor

EPS = 1e-6
CLOSE = 2e-6
"""Float32's own error is 2e-7 to 1e-6 here."""

SMALL = DeltaNet(2, 4, 64, 64, 4, tiled=True)
QWEN36 = DeltaNet(16, 32, 128, 128, 4, tiled=True)
QWEN3_NEXT = replace(QWEN36, tiled=False)
NETS = {
    "small": SMALL,
    "not tiled": replace(SMALL, tiled=False),
    "of its sizes": DeltaNet(1, 2, 128, 128, 4, tiled=True),
    "as many key heads": DeltaNet(3, 3, 96, 64, 3, tiled=True),
    "short keys": DeltaNet(1, 3, 32, 128, 2, tiled=False),
    "odd": DeltaNet(2, 4, 37, 75, 3, tiled=True),
    "tiny": DeltaNet(1, 1, 3, 5, 4, tiled=True),
    "without history": DeltaNet(1, 2, 40, 24, 1, tiled=True),
}


class Inputs(NamedTuple):
    """What `delta_net` gets of each token."""

    qkv: Floats
    z: Floats
    alpha: Floats
    beta: Floats

    def rows(self, begin: int, end: int) -> Inputs:
        return Inputs(*(part[begin:end].copy() for part in self))


class Vectors(NamedTuple):
    """A layer's weights."""

    conv: Floats
    a: Floats
    dt: Floats
    norm: Floats


class Case(NamedTuple):
    """All that goes in."""

    net: DeltaNet
    inputs: Inputs
    vectors: Vectors


class Result(NamedTuple):
    """What comes out, and the state after it."""

    outputs: Floats
    conv: Floats
    matrices: Floats


def random_case(net: DeltaNet, n: int, seed: int = 0) -> Case:
    heads = net.value_heads
    sizes = (net.conv_features, net.values, heads, heads)
    inputs = Inputs(*(normal(seed + i, n, size) for i, size in enumerate(sizes)))
    conv = normal(seed + 4, net.conv_features * net.kernel, scale=0.5)
    a = -np.exp(normal(seed + 5, heads))
    return Case(net, inputs, Vectors(conv, a, normal(seed + 6, heads), normal(seed + 7, net.value)))


def weights(ops: Any, vectors: Vectors) -> DeltaNetWeights[Any]:
    return DeltaNetWeights(*(ops.vector(tensor(values)) for values in vectors))


@contextmanager
def float_type(kind: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def wanted(case: Case, kind: torch.dtype = torch.float64) -> Result:
    """What the oracle says, computed in this type."""
    with float_type(kind):
        state = REFERENCE.recurrent_state(StateShape(1, 1, case.net))
        parts = [torch.from_numpy(part).to(kind) for part in case.inputs]
        out = REFERENCE.delta_net(*parts, weights(REFERENCE, case.vectors), EPS, case.net, state, 0)
    return Result(out.numpy(), state.conv[0, 0].numpy(), state.matrices[0, 0].numpy())


def run(ops: CpuOps, case: Case, counts: Sequence[int]) -> Result:
    """In passes of so many tokens."""
    state = ops.recurrent_state(StateShape(1, 1, case.net))
    vectors, outs, at = weights(ops, case.vectors), [], 0
    for n in counts:
        part = case.inputs.rows(at, at + n)
        outs.append(ops.delta_net(*part, vectors, EPS, case.net, state, 0))
        at += n
    assert at == len(case.inputs.qkv)
    return Result(np.concatenate(outs), *state.read(0))


def assert_close(got: Result, right: Result, close: float = CLOSE) -> None:
    assert relative_error(got.outputs, right.outputs) < close
    assert relative_error(got.matrices, right.matrices) < close
    np.testing.assert_array_equal(got.conv, right.conv)


@cache
def shared(name: str, n: int) -> tuple[Case, Result, Result]:
    """A random case with what is right in float64 and in float32."""
    case = random_case(NETS[name], n)
    return case, wanted(case), wanted(case, torch.float32)
