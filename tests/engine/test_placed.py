"""The runtime on simulated GPUs: the same words wherever layers are, and memory used to its reserve."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import MemoryShortError
from engine.gguf.file import GGUFFile
from engine.machine.types import Gpu, Hardware
from engine.model.transformer import Transformer, page_table
from engine.plan.placement import LayerPlace, Placement
from engine.plan.planner import make_plan
from engine.protocol import Load
from engine.runtimes.gpu import load_on_gpus
from engine.runtimes.native import PAGE_SIZE, NativeRuntime, pages_for
from engine.runtimes.placed import SIZES, KvShortError, load_placed, threads_beside_gpus
from engine.spec.reader import read_spec
from kernels.cpu import CpuOps
from kernels.device import DeviceMemory
from kernels.gpu.sizes import buckets
from kernels.hybrid.split import SplitOps
from kernels.reference import ReferenceOps
from kernels.sizes import STREAM_CHUNKS
from tests.support.fidelity import logits, nmse
from tests.support.plans import machine
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import tiny_model

MIB = 1 << 20
TOKENS = np.random.default_rng(2).integers(0, 250, 60).tolist()
RESERVE = 3 * MIB


@contextmanager
def placed(
    path: Path,
    placement: Placement,
    devices: dict[int, SimulatedDevice],
    longest: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[NativeRuntime]:
    with GGUFFile.open(path) as file:
        runtime = load_placed(
            *(file, read_spec(file), placement, devices.__getitem__),
            reserve=lambda gpu, memory: RESERVE,
            threads=2,
            report=progress,
            longest=longest,
        )
        try:
            yield runtime
        finally:
            runtime.close()


def layers(*places: tuple[int | None, int]) -> tuple[LayerPlace, ...]:
    return tuple(LayerPlace(*place) for place in places)


def said(runtime: NativeRuntime) -> Any:
    """Logits after a chunk and after some tokens more."""
    runtime.begin(TOKENS)
    rows = [runtime.forward(TOKENS[:30])]
    return np.stack(rows + [runtime.forward([token]) for token in TOKENS[30:]])


@pytest.mark.parametrize(
    ("places", "word"),
    [
        (layers((0, 8), (0, 8), (0, 8)), "GPU"),  # the first is dense: it has no experts
        (layers((0, 0), (0, 0), (0, 0)), "hybrid"),
        (layers((0, 0), (0, 3), (0, 8)), "hybrid"),
        (layers((None, 0), (0, 3), (1, 3)), "hybrid"),
        (layers((1, 0), (1, 8), (0, 8)), "GPU"),
    ],
)
def test_a_placement_says_where_and_not_what(
    places: tuple[LayerPlace, ...], word: str, tmp_path: Path
) -> None:
    path = tiny_model("deepseek2", tmp_path, variant="v2-lite")
    chunks = [30, *[1] * 30]
    keep = [29, *range(30, 60)]
    whole = logits(path, ReferenceOps(), chunks, TOKENS)[keep]
    on_cpu = nmse(logits(path, CpuOps(2), chunks, TOKENS)[keep], whole)
    devices = {number: SimulatedDevice() for number in range(2)}
    with placed(path, Placement(places, 64, "f16"), devices) as runtime:
        assert runtime.device == word and runtime.context == 64
        assert nmse(said(runtime), whole) <= 1.2 * on_cpu + 1e-11
    used = {place.gpu for place in places}
    assert [devices[n].held > 0 for n in range(2)] == [n in used for n in range(2)]


def test_what_weights_leave_becomes_pages_down_to_the_reserve(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    placement = Placement(layers((0, 2), (0, 2)), 64, "f16")
    measured = SimulatedDevice()
    with placed(path, placement, {0: measured}, longest=True) as runtime:
        page = runtime.kv_bytes_per_token * PAGE_SIZE
    weights = measured.held - pages_for(runtime.context) * page
    device = SimulatedDevice(total=weights + RESERVE + 10 * page + 7)
    with placed(path, placement, {0: device}) as runtime:
        assert runtime.context == 64  # what was planned; more pages remember older sequences
        assert device.memory().free == RESERVE + 7
    device = SimulatedDevice(total=weights + RESERVE + 10 * page + 7)
    with placed(path, placement, {0: device}, longest=True) as runtime:
        assert runtime.context == 9 * PAGE_SIZE
        said(runtime)
        assert device.memory().free == RESERVE + 7  # nothing grows later


def test_a_context_that_was_planned_too_tightly_is_shorter(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    placement = Placement(layers((0, 2), (0, 2)), 640, "f16")
    device = SimulatedDevice()
    with placed(path, placement, {0: device}, longest=True) as runtime:
        page = runtime.kv_bytes_per_token * PAGE_SIZE
        weights = device.held - pages_for(runtime.context) * page
    # Room for the planned cache, but then less than the reserve.
    tight = SimulatedDevice(total=weights + RESERVE + 11 * page)
    tight.others = -10 * page
    with placed(path, placement, {0: tight}) as runtime:
        assert runtime.context == 640
    with (
        pytest.raises(KvShortError, match="tokens"),
        placed(path, placement, {0: SimulatedDevice(total=weights + 22 * page)}),
    ):
        pass


def test_a_load_tries_every_bucket() -> None:
    assert set(buckets(STREAM_CHUNKS[0])) <= set(SIZES)


@pytest.mark.parametrize(("streamed", "chunk"), [(0.1, 1024), (1.9, 1024), (2.1, 512)])
def test_chunks_are_long_where_experts_stream(
    streamed: float, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """512 tokens' experts take the host a second; how long they take to stream decides from which number on."""
    path, device = tiny_model("qwen3moe", tmp_path), SimulatedDevice()
    monkeypatch.setattr(SplitOps, "time_chunk", lambda *arguments: (1.0, streamed))
    placement = Placement(layers((0, 2), (0, 2)), 1100, "f16", chunk=1024)
    tokens = (TOKENS * 20)[:1090]
    with placed(path, placement, {0: device}) as runtime:
        assert runtime.chunk == chunk
        before = device.streamed
        runtime.begin(tokens)
        for first in range(0, len(tokens), chunk):
            got = runtime.forward(tokens[first : first + chunk])
        # The last layer computes one row only; the second chunk of the first case has 66 tokens.
        assert device.streamed - before == {0.1: 2, 1.9: 1, 2.1: 0}[streamed]
    with GGUFFile.open(path) as file:
        pages = pages_for(1100)
        whole: Transformer[Any, Any, Any] = Transformer(
            file, read_spec(file), CpuOps(2), pages, PAGE_SIZE, chunk=1100
        )
        wanted = whole.forward(np.array(tokens, np.int32), page_table(list(range(pages))), 0)
    assert nmse(got, wanted) < 1e-3


@pytest.mark.parametrize(
    ("cores", "place", "threads"), [(8, (0, 2), 7), (1, (0, 2), 1), (8, (None, 0), 8)]
)
def test_a_core_is_left_for_what_launches_a_gpu_s_work(
    cores: int, place: tuple[int | None, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtimes.placed.default_threads", lambda: cores)
    assert threads_beside_gpus(Placement(layers(place), 64, "f16")) == threads


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    seen: list[tuple[int, int]] = []
    placement = Placement(layers((0, 2), (0, 2)), 64, "f16")
    with placed(path, placement, {0: SimulatedDevice()}, progress=lambda *step: seen.append(step)):
        assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]


# ---- memory that runs out ----------------------------------------------------------------------------


class Desk:
    """A machine whose GPU says at each look that so many bytes are free, and has so many at each load."""

    def __init__(self, says: list[int], has: list[int]) -> None:
        self.says, self.has, self.opened, self.said = says, has, 0, []  # type: ignore[var-annotated]
        self.device: SimulatedDevice | None = None
        self.devices: list[weakref.ref[SimulatedDevice]] = []

    def look(self) -> Hardware:
        free = self.says[min(self.opened, len(self.says) - 1)]
        gpu = Gpu("card", 8 * GIB, free, compute="8.9", read_gb_s=900)
        return replace(machine(64), gpus=(gpu,))

    def open(self, gpu: int) -> SimulatedDevice:
        self.device = None  # what an earlier attempt still holds would be missing now
        assert all(device() is None for device in self.devices)
        self.device = SimulatedDevice(self.has[min(self.opened, len(self.has) - 1)])
        self.devices.append(weakref.ref(self.device))
        self.opened += 1
        return self.device

    def load(self, path: Path, context: Any = None) -> NativeRuntime:
        with GGUFFile.open(path) as file:
            spec = read_spec(file)
            load = Load(str(path), context, 2)
            plan = make_plan(spec, self.look(), context)
            assert plan.placement is not None, plan.no_gpu
            self.plan = plan
            return load_on_gpus(
                *(file, spec, load, plan, self.look, lambda done, total: None, self.said.append),
                open_device=self.open,
            )


GIB = 1 << 30


def test_a_gpu_that_has_what_it_says_is_loaded_once(tmp_path: Path) -> None:
    desk = Desk([4 * GIB], [4 * GIB])
    desk.load(tiny_model("qwen3moe", tmp_path)).close()
    assert desk.opened == 1 and desk.said == []


def test_memory_that_runs_out_is_planned_again_once(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    desk = Desk([4 * GIB], [4 * GIB])
    first = desk.load(path)
    first.close()
    assert desk.device is not None
    desk = Desk([4 * GIB], [desk.device.peak // 2, 4 * GIB])  # another program came and went
    runtime = desk.load(path)
    assert desk.opened == 2 and runtime.context == first.context // 2
    assert "ran out" in desk.said[0] and "bytes wanted" in desk.said[0]
    said(runtime)
    runtime.close()


def test_memory_that_runs_out_twice_is_said_in_numbers(tmp_path: Path) -> None:
    desk = Desk([4 * GIB], [2 * MIB])
    with pytest.raises(MemoryShortError) as error:
        desk.load(tiny_model("qwen3moe", tmp_path))
    assert desk.opened == 2
    assert "4.3 GB of 8.6 GB" in error.value.why and "bytes wanted" in error.value.why
    assert "--device cpu" in error.value.todo


def test_memory_that_is_gone_is_not_tried_again(tmp_path: Path) -> None:
    desk = Desk([4 * GIB, 100 * MIB], [2 * MIB])
    with pytest.raises(MemoryShortError, match="no room"):
        desk.load(tiny_model("qwen3moe", tmp_path))
    assert desk.opened == 1


def test_the_simulated_memory_is_the_devices() -> None:
    device = SimulatedDevice(100, others=30)
    assert device.memory() == DeviceMemory(70, 100)
