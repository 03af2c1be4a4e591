"""Where the layers and the experts of a model lie in the GPU check, and the op sets for that.

Knows op sets; knows neither files nor figures. The runtime that a plan asks for is loaded in one place:
`runtime`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from engine.gguf.file import GGUFFile
from engine.plan.placement import LayerPlace, Placement
from engine.runtimes.gpu import cuda_device
from engine.runtimes.native import NativeRuntime
from engine.runtimes.placed import load_placed
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from kernels.cpu import CpuOps
from kernels.hybrid.split import SplitOps
from kernels.ops import CacheKind, Tensor
from tests.gpu.children import SIMULATED

Device = Callable[[], Any]
"""Makes a `kernels.device.DeviceOps`."""

_LAYER = re.compile(r"blk\.(\d+)\.")


class Where(NamedTuple):
    """A way to place any model, in shares of it."""

    name: str
    experts: float = 1.0
    """Routed experts with a place on the GPU, of each layer there."""
    on_cpu: float = 0.0
    """Layers that the CPU computes whole, the first ones."""
    streams: bool = False
    """Absent experts of long chunks pass through the GPU."""
    kv: CacheKind = "f16"
    """How the GPU keeps the KV cache."""


WHOLE = Where("all on the GPU")
HOST = Where("experts on the CPU", experts=0.0)
FIDELITY = (
    WHOLE,
    HOST,
    Where("experts partly resident", experts=0.5),
    Where("experts streamed", experts=0.25, streams=True),
    Where("half of the layers on the CPU", experts=0.5, on_cpu=0.5),
    Where("a KV cache in 8 bits", kv="q8"),
)
"""Those in which logits are held against float32."""

STREAMED = 32
"""Tokens of a chunk from which on absent experts pass through the GPU, where they do."""


def gpu(number: int = 0) -> Any:
    """A GPU's op set; a simulated one's in a dry run."""
    if os.environ.get(SIMULATED) == "simulated":
        from tests.support.simulated_device import SimulatedDevice

        return SimulatedDevice(8 << 30)
    return cuda_device(number)


def differ(spec: ModelSpec) -> tuple[Where, ...]:
    """The placements that are not all the same for a model: a dense one has no experts to place."""
    if spec.moe is not None:
        return FIDELITY
    return tuple(where for where in FIDELITY if where.on_cpu or where in (WHOLE, FIDELITY[-1]))


def placement(spec: ModelSpec, where: Where, context: int) -> Placement:
    """`where`, of this model."""
    first = round(where.on_cpu * spec.layers)
    experts = round(where.experts * spec.moe.experts) if spec.moe is not None else 0
    dense = spec.layers - spec.moe_layers
    places = [
        LayerPlace(None) if layer < first else LayerPlace(0, experts if layer >= dense else 0)
        for layer in range(spec.layers)
    ]
    return Placement(tuple(places), context, where.kv)


@contextmanager
def op_sets(
    layers: Sequence[LayerPlace], device: Device = gpu, *, streams: bool = False
) -> Iterator[list[Any]]:
    """An op set for each layer; all of them are closed at the end."""
    with ExitStack() as opened:
        host = opened.enter_context(closing(CpuOps(pin=True)))
        there: Any = None
        if any(place.gpu is not None for place in layers):
            there = opened.enter_context(closing(device()))
            there = SplitOps(there, host, lambda tensor: layers[_layer(tensor)].experts)
            opened.callback(there.close)
            there.stream_from(STREAMED if streams else None)
        yield [host if place.gpu is None else there for place in layers]


def _layer(tensor: Tensor) -> int:
    found = _LAYER.match(tensor.name)
    assert found is not None, tensor.name
    return int(found[1])


@contextmanager
def runtime(path: Path, chosen: Callable[[ModelSpec], Placement]) -> Iterator[NativeRuntime]:
    """The runtime that a conversation would have, on the placement `chosen` for the model.

    Its KV cache has the pages of the placement's context and no more, as a plan counts them.
    """
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        loaded = load_placed(
            file,
            spec,
            chosen(spec),
            gpu,
            lambda number, memory: memory.free,  # what is left is not for older sequences here
        )
        try:
            yield loaded
        finally:
            loaded.close()
