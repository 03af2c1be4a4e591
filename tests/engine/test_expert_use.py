"""What is counted of experts is what the float32 reference's routers choose for the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.gguf.file import GGUFFile
from engine.plan.placement import LayerPlace, Placement
from engine.runtimes.expert_use import ExpertUse
from engine.runtimes.native import NativeRuntime
from engine.runtimes.placed import load_placed
from engine.spec.reader import read_spec
from kernels.hybrid.split import SplitOps
from tests.support.reference_routing import reference_choices, uses
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import MOE_MODELS, tiny_model
from tests.support.tiny_shapes import SHAPES

TOKENS = np.random.default_rng(4).integers(0, 250, 60).tolist()
PROMPT = 23


@contextmanager
def on_cpu(path: Path) -> Iterator[NativeRuntime]:
    with GGUFFile.open(path) as file:
        runtime = NativeRuntime.load(file, read_spec(file), 96, threads=2)
        try:
            yield runtime
        finally:
            runtime.close()


def counting(runtime: NativeRuntime) -> ExpertUse:
    use = runtime.expert_use
    assert use is not None
    return use


@pytest.mark.parametrize(("architecture", "variant"), MOE_MODELS)
def test_tokens_one_by_one(architecture: str, variant: str, tmp_path: Path) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant)
    experts = SHAPES[architecture, variant].experts
    wanted = reference_choices(path, TOKENS)
    with on_cpu(path) as runtime:
        use = counting(runtime)
        for first in (PROMPT, PROMPT + 5):  # recorded the first time, then repeated
            runtime.begin(TOKENS[:first])
            runtime.forward(TOKENS[:first][len(runtime._sequence.tokens) :])
            use.begin()
            for token in TOKENS[first:]:
                runtime.forward([token])
            use.end()
            runtime.forward([1])  # of no reply
            used = use.used()
            assert used.tokens == used.passes == len(TOKENS) - first
            assert used.first_layer + len(used.uses) == runtime._model.spec.layers
            np.testing.assert_array_equal(used.uses, uses(wanted[:, first:], experts))
            assert used.on_device is None
            assert (used.reads == used.tokens * used.top_k).all()


@pytest.mark.parametrize(
    ("architecture", "variant"), [("qwen3moe", "qwen3moe"), ("deepseek2", "v2-lite")]
)
def test_drafts_that_prove_wrong_are_taken_back(
    architecture: str, variant: str, tmp_path: Path
) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant)
    experts = SHAPES[architecture, variant].experts
    wanted = reference_choices(path, TOKENS)
    with on_cpu(path) as runtime:
        use = counting(runtime)
        runtime.begin(TOKENS[:PROMPT])
        runtime.forward(TOKENS[:PROMPT])
        use.begin()
        at, read, passes = PROMPT, np.zeros(len(wanted), np.int64), 0
        for size, kept in ((4, 1), (2, 2), (4, 3), (2, 1), (1, 1), (4, 4), (3, 2), (2, 1)):
            draft = [*TOKENS[at : at + kept], *[7] * (size - kept)]
            seen = reference_choices(path, [*TOKENS[:at], *draft])[:, at:]
            read += [len(np.unique(layer)) for layer in seen]
            if size > 1:
                runtime.forward_all(draft)
            else:
                runtime.forward(draft)
            if kept < size:
                runtime.cut_back(size - kept)
            at, passes = at + kept, passes + 1
        used = use.used()
        assert (used.tokens, used.passes) == (at - PROMPT, passes)
        np.testing.assert_array_equal(used.uses, uses(wanted[:, PROMPT:at], experts))
        np.testing.assert_array_equal(used.reads, read)


def places(*each: tuple[int | None, int]) -> tuple[LayerPlace, ...]:
    return tuple(LayerPlace(*one) for one in each)


@pytest.mark.parametrize("sync", ["stream memory operations", "none"])
@pytest.mark.parametrize(
    "placement",
    [
        places((0, 8), (0, 8), (0, 8)),
        places((0, 0), (0, 0), (0, 0)),
        places((0, 0), (0, 3), (0, 8)),
        places((None, 0), (0, 3), (1, 3)),
        places((None, 0), (None, 0), (0, 3)),
    ],
)
def test_with_devices_it_is_known_where_experts_were(
    placement: tuple[LayerPlace, ...], sync: str, tmp_path: Path
) -> None:
    path = tiny_model("deepseek2", tmp_path, variant="v2-lite")
    wanted = reference_choices(path, TOKENS)[:, PROMPT:]
    devices = {n: SimulatedDevice(host_sync=sync) for n in range(2)}  # type: ignore[arg-type]
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        runtime = load_placed(
            *(file, spec, Placement(placement, 96, "f16"), devices.__getitem__),
            reserve=lambda gpu, memory: 0,
            threads=2,
        )
    try:
        use = counting(runtime)
        runtime.begin(TOKENS[:PROMPT])
        runtime.forward(TOKENS[:PROMPT])
        use.begin()
        there = np.zeros((2, 8), np.int64)
        for at, token in enumerate(TOKENS[PROMPT:]):
            runtime.forward([token])
            for row, place in enumerate(placement[1:]):
                _note_where(runtime, there[row], row, place, wanted[row, at])
        used = use.used()
    finally:
        runtime.close()
    assert used.first_layer == 1 and used.tokens == len(TOKENS) - PROMPT
    np.testing.assert_array_equal(used.uses, uses(wanted, 8))
    assert used.on_device is not None
    np.testing.assert_array_equal(used.on_device, there)


def _note_where(
    runtime: NativeRuntime, there: np.ndarray, row: int, place: LayerPlace, chosen: np.ndarray
) -> None:
    """As the device's own table has it, which it computes by; nothing moves between a pass and the next."""
    if place.experts == 8:
        there[chosen] += 1
        return
    for stage in runtime._model.stages:
        slots = stage.ops._experts._slots if isinstance(stage.ops, SplitOps) else None
        if slots is not None and f"blk.{row + 1}" in slots.layers:
            table = slots._tables[slots.layers.index(f"blk.{row + 1}")].numpy()[0]
            there[chosen[table[chosen] >= 0]] += 1
