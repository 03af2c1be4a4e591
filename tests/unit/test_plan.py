"""Where a model goes on a machine: every byte is accounted for, and what does not fit is said."""

from __future__ import annotations

import dataclasses
import json

import pytest

from engine.catalog.numbers import Numbers
from engine.common.units import byte_size
from engine.errors import MemoryShortError, RequestError
from engine.machine.types import Hardware
from engine.plan import footprint, report
from engine.plan.context import RESERVE, choose_context
from engine.plan.footprint import kv_bytes, weight_bytes, workspace_bytes
from engine.plan.memory_plan import KV, RESERVED, WORKSPACE, DevicePlan, MemoryPlan
from engine.plan.planner import make_plan
from engine.plan.report import FULL, OPEN, bars
from engine.runtimes import native
from engine.spec.spec import GroupSize, MlaSpec
from tests.support.plans import (
    DEEPSEEK_V3,
    FOREIGN,
    GIB,
    GPT_OSS,
    MIXTRAL,
    QWEN3_30B,
    machine,
    spec,
)

MODELS = [QWEN3_30B, MIXTRAL, DEEPSEEK_V3]


def part(plan: MemoryPlan, label: str) -> int:
    return sum(s.bytes for d in plan.devices for s in d.segments if s.label == label)


def ram_of(plan: MemoryPlan) -> DevicePlan:
    return plan.devices[-1]


# on the CPU


@pytest.mark.parametrize("numbers", MODELS)
def test_without_a_gpu_everything_is_in_ram(numbers: Numbers) -> None:
    model = spec(numbers)
    plan = make_plan(model, machine(1000))
    assert plan.verdict == plan.fit_words == "CPU"
    assert plan.placement is None and not plan.no_gpu
    (ram,) = plan.devices
    assert plan.weights_bytes == model.weights_bytes
    assert part(plan, KV) == kv_bytes(model, plan.context)
    assert part(plan, WORKSPACE) == workspace_bytes(model)
    assert ram.used == ram.resident + part(plan, RESERVED)
    assert part(plan, WORKSPACE) + part(plan, RESERVED) >= RESERVE
    assert not plan.short_bytes and not plan.short_of


def test_the_context_is_the_engines_choice_and_the_longest_is_told() -> None:
    model = spec()
    for ram in (20, 22, 30, 64, 300):
        free = ram * GIB
        plan = make_plan(model, machine(ram))
        assert plan.context == choose_context(None, model, free)
        assert choose_context(plan.max_context, model, free) == plan.max_context
        if plan.max_context < model.context:
            with pytest.raises(MemoryShortError):
                choose_context(plan.max_context + 1, model, free)


@pytest.mark.parametrize("ram", [4, 17.6, 17.7, 17.8, 17.9, 18, 18.5, 19])
@pytest.mark.parametrize("context", [None, 256, 4096, 9000])
def test_the_plan_refuses_what_the_loader_refuses(ram: float, context: int | None) -> None:
    model = spec()
    plan = make_plan(model, machine(ram), context)
    try:
        chosen: int | None = choose_context(context, model, int(ram * GIB))
    except MemoryShortError:
        chosen = None
    assert plan.fits == (chosen is not None)
    if chosen is not None:
        assert plan.context == chosen


def test_what_does_not_fit_says_by_how_much() -> None:
    model = spec()
    plan = make_plan(model, machine(10))
    assert plan.verdict == "does not fit" and plan.short_of == "RAM"
    needed = model.weights_bytes + kv_bytes(model, plan.context) + RESERVE
    assert plan.short_bytes == needed - 10 * GIB
    assert plan.fit_words == f"short by {byte_size(plan.short_bytes)} of RAM"
    assert plan.decode_tok_s is None and plan.prefill_tok_s is None and not plan.bound_words
    assert f"does not fit: {plan.fit_words}" in report.words(plan)[0]


def test_impossible_contexts_are_refused_and_long_ones_warned_of() -> None:
    for bad in (0, -1):
        with pytest.raises(RequestError):
            make_plan(spec(), machine(), bad)
    plan = make_plan(spec(MIXTRAL), machine(500), 40000)
    assert plan.context == 40000 and any("32,768 tokens" in line for line in report.words(plan))


def test_a_machine_whose_memory_is_unknown_promises_nothing_false() -> None:
    plan = make_plan(spec(), Hardware())
    assert plan.fits and plan.decode_tok_s is None
    assert any("memory is not known" in line for line in report.words(plan))
    assert any("ktchat doctor" in line for line in report.words(plan))


def test_a_context_beyond_the_training_is_no_longer_than_the_longest() -> None:
    model = dataclasses.replace(spec(), context=1024)
    plan = make_plan(model, machine(64), 4096)
    assert plan.fits and plan.context == plan.max_context == 4096
    assert any("trained for 1,024 tokens" in line for line in report.words(plan))
    assert make_plan(model, machine(64)).max_context == 1024


def test_layers_that_see_a_window_take_no_more_for_a_longer_context() -> None:
    model = spec(GPT_OSS, "MXFP4")
    short, long = (make_plan(model, machine(64), tokens) for tokens in (8192, 65536))
    parts = [dict(plan.devices[0].segments) for plan in (short, long)]
    assert parts[0]["sliding windows"] == parts[1]["sliding windows"] > 0
    # A ring of 20 pages and 32 copies of 5 for 12 layers; whole pages and one more for the others.
    # A row is 8 heads of 64 keys and 64 values, 2 bytes each and 2 for a head's scale.
    assert parts[0]["sliding windows"] == 12 * 2080 * 32 * (20 + 32 * 5)
    assert parts[1]["KV cache"] == 12 * 2080 * (65536 + 32)
    assert any("12 of 24 layers see the last 128 tokens only" in words for words in short.why)


def test_foreign_models_are_llama_cpps() -> None:
    plan = make_plan(spec(FOREIGN, "MXFP4"), machine(64, 24))
    assert plan.runtime == "llama.cpp" and plan.verdict == "CPU"
    assert plan.placement is None and "llama.cpp" in plan.no_gpu
    assert any(plan.no_gpu in line for line in report.words(plan))


def test_bytes_in_memory_may_differ_from_the_files() -> None:
    model = spec()
    size = model.groups["experts"]
    packed = dataclasses.replace(size, resident=size.bytes + 1000)
    other = dataclasses.replace(model, groups={**model.groups, "experts": packed})
    assert sum(weight_bytes(other).values()) == model.weights_bytes + 1000


def test_old_latent_files_keep_a_transposed_half() -> None:
    model = spec(DEEPSEEK_V3)
    assert model.mla is not None
    joined: MlaSpec = dataclasses.replace(model.mla, split=False)
    old = dataclasses.replace(model, mla=joined)
    more = sum(weight_bytes(old).values()) - sum(weight_bytes(model).values())
    assert more > 61 * 128 * 512 * 128 * 2  # layers, heads, latent, key, float16


def test_pages_and_chunks_are_the_runtimes() -> None:
    assert (footprint.PAGE, footprint.CHUNK) == (native.PAGE_SIZE, native.CHUNK)


def test_layers_that_nobody_reads_take_no_memory() -> None:
    model = spec()
    with_more = dataclasses.replace(model, groups={**model.groups, "unused": GroupSize(10**9, 1)})
    assert make_plan(with_more, machine()).devices == make_plan(model, machine()).devices


# words


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("hardware", [machine(64, 8, 12), machine(2), Hardware()])
def test_bars_keep_to_the_width_and_to_scale(width: int, hardware: Hardware) -> None:
    plan = make_plan(spec(), hardware)
    lines = report.bars(plan, width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == sum(len(device.segments) + 1 for device in plan.devices)
    biggest = max(plan.devices[-1].segments, key=lambda segment: segment.bytes)
    drawn = lines[-len(plan.devices[-1].segments) :]
    cells = [line.count(FULL) + line.count(OPEN) for line in drawn]
    assert cells[[biggest.label in line for line in drawn].index(True)] == max(cells)
    assert bars(plan, 5) == bars(plan, 40)


def test_a_plan_as_json() -> None:
    plan = make_plan(spec(), machine(64, 8))
    out = json.loads(json.dumps(report.to_dict(plan)))
    assert out["fits"] and out["verdict"] == "hybrid" and len(out["placement"]["layers"]) == 48
    assert out["placement"]["layers"][0]["gpu"] == 0 and out["placement"]["kv"] == "f16"
    assert out["devices"][0]["segments"][0] == {
        "label": "attention",
        "bytes": plan.devices[0].segments[0].bytes,
    }
    assert sum(s["bytes"] for s in out["devices"][0]["segments"]) == out["devices"][0]["used"]
