"""A `NativeRuntime` as a placement says: op sets for its layers, a KV cache as large as memory allows, warm.

Weights first; then passes up to the largest chunk, at the longest context, make every buffer that there
will be; then free memory is read, a reserve kept, and the rest becomes pages of KV. Nothing grows
later, so that a conversation that fits at the start does not run out of memory in the middle.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.model.weights import Report
from engine.plan.footprint import state_slots
from engine.plan.memory_plan import expert_count
from engine.plan.placement import Placement
from engine.protocol import Computed
from engine.runtimes.native import CHUNK, PAGE_SIZE, NativeRuntime, pages_for
from engine.spec.spec import ModelSpec
from kernels.cpu import CpuOps
from kernels.cpu.cores import default_threads
from kernels.device import DeviceMemory, DeviceOps
from kernels.hybrid.split import SplitOps
from kernels.ops import Tensor
from kernels.sizes import STREAM_CHUNKS

OpenDevice = Callable[[int], DeviceOps[Any, Any, Any]]
"""The op set of a GPU by its number, to be closed by `close`."""
Reserve = Callable[[int, DeviceMemory], int]
"""Bytes that stay free on a GPU."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, CHUNK, 2 * CHUNK, *sorted(STREAM_CHUNKS))
"""Tokens of the passes that a load tries: every bucket of attention (`kernels.gpu.sizes`) and every number of
rows that products are compiled for."""
LEAST_CONTEXT = 256
"""Tokens below which a context is of no use: then memory has run out."""


class KvShortError(MemoryError):
    """Beside the weights there is no room for a useful KV cache."""


def load_placed(
    file: GGUFFile,
    spec: ModelSpec,
    placement: Placement,
    open_device: OpenDevice,
    reserve: Reserve,
    threads: int | None = None,
    report: Report = lambda done, total: None,
    longest: bool = False,
) -> NativeRuntime:
    """The model, loaded and warm. With `longest` its context is the longest that memory then allows;
    else that of the placement, or a shorter one where memory was planned too tightly.

    Raises `kernels.device.DeviceMemoryError` and `KvShortError` where a device has too little memory.
    """
    with ExitStack() as opened:
        each, sides = op_sets(placement, open_device, threads, opened)
        pages = pages_for(placement.context)
        model: Transformer[Any, Any, Any] = Transformer(
            *(file, spec, each, pages, PAGE_SIZE, report),
            kv=placement.kv,
            slots=state_slots(spec),
            chunk=placement.chunk,
        )
        _warm_up(model, placement.context)
        most = min(placement.chunk, placement.context)
        streams = [_choose_streaming(side, spec, most) for side in sides.values()]
        context, fitting = _commit(model, placement, sides, reserve, longest)
        if fitting != pages:
            model.resize(fitting)
            _warm_up(model, context)  # attention's plans are made for a cache
        for _ in range(2):  # op by op, which captures; then as it will be repeated
            model.forward(np.zeros(1, np.int32), page_table(list(range(fitting))), 0)
        chunk = placement.chunk if any(streams) else CHUNK
        what = computed(placement, spec)
        return NativeRuntime(model, context, fitting, [opened.pop_all()], what, chunk, placement)


def computed(placement: Placement, spec: ModelSpec) -> Computed:
    """ "GPU" where GPUs hold all that computes, else "hybrid"."""
    return "GPU" if placement.whole(expert_count(spec)) else "hybrid"


Sides = dict[int, SplitOps[Any, Any, Any]]
"""For every GPU the op set that shares its layers' experts with the host."""


def op_sets(
    placement: Placement, open_device: OpenDevice, threads: int | None, opened: ExitStack
) -> tuple[list[Any], Sides]:
    """An op set for every layer, and those of the GPUs; `opened` closes them."""

    def slots(tensor: Tensor) -> int:
        return placement.layers[int(tensor.name.split(".")[1])].experts

    host = CpuOps(threads_beside_gpus(placement) if threads is None else threads, pin=True)
    opened.callback(host.close)
    sides: Sides = {}
    for gpu in placement.gpus:
        device = open_device(gpu)
        opened.callback(device.close)
        sides[gpu] = SplitOps(device, host, slots)
        opened.callback(sides[gpu].close)
    return [host if place.gpu is None else sides[place.gpu] for place in placement.layers], sides


def threads_beside_gpus(placement: Placement) -> int:
    """Threads of the host's kernels: where a GPU computes, one core is left for what launches its work and
    waits for it."""
    cores = default_threads()
    return max(1, cores - 1) if placement.gpus else cores


def _warm_up(model: Transformer[Any, Any, Any], context: int) -> None:
    """On every device the end of the longest context, in every number of tokens that a prompt's passes have:
    all kernels are compiled, all buffers made. The host computes nothing meanwhile."""
    pages = page_table(list(range(pages_for(context))))
    for stage in model.stages:
        if isinstance(stage.ops, SplitOps):
            with stage.ops.device_alone():
                for count in sorted({min(size, model.chunk, context) for size in SIZES}):
                    model.try_stage(stage, count, pages, context - count)


def _commit(
    model: Transformer[Any, Any, Any],
    placement: Placement,
    sides: Sides,
    reserve: Reserve,
    longest: bool,
) -> tuple[int, int]:
    """(context, pages) for what memory is left. Pages that the context does not need remember older
    sequences; more than the model was trained for are of no use.

    Raises `KvShortError`.
    """
    planned = pages_for(placement.context)
    most = max(planned, pages_for(model.spec.context))
    pages = most if placement.on_cpu == 0 else planned  # the CPU's part is planned, not measured
    for gpu, side in sides.items():
        memory = side.memory()
        spare = memory.free - reserve(gpu, memory)
        if page := model.page_bytes(side):
            pages = min(pages, planned + spare // page)
    room = (pages - 1) * PAGE_SIZE
    context = min(model.spec.context if longest else placement.context, room)
    if context < min(LEAST_CONTEXT, placement.context):
        raise KvShortError(f"{max(0, room)} tokens of context have room")
    return context, pages


def _choose_streaming(side: SplitOps[Any, Any, Any], spec: ModelSpec, most: int) -> bool:
    """Measure from how many tokens on a chunk's absent experts are faster on the device; whether any chunk, of at most
    `most` tokens, is so long.

    The host's time grows with the tokens; the device's is the experts' way to it, which a chunk of a few
    hundred tokens takes nearly whole.
    """
    if spec.moe is None:
        return False
    tokens = min(CHUNK, most)
    with side.active():
        seconds = side.time_chunk(tokens, spec.moe.top_k)
        side.measure_uploads()
        if seconds is None:
            return False
        on_host, streamed = seconds
        least = int(tokens * streamed / on_host) + 1
        side.stream_from(least if least <= most else None)
        if least <= most and most > tokens:
            side.try_streaming(most, spec.moe.top_k)  # makes its buffers
        return least <= most
