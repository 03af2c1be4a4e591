"""Where a model goes on a machine: every byte is accounted for, and what does not fit is said."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from engine import footprint
from engine.catalog_tensors import Numbers
from engine.context import RESERVE, choose_context
from engine.errors import MemoryShortError, RequestError
from engine.footprint import kv_bytes, weight_bytes, workspace_bytes
from engine.machine import Hardware
from engine.placement import gpu_work_bytes, reserve_bytes
from engine.plan import KV, RESERVED, WORKSPACE, DevicePlan, MemoryPlan, make_plan
from engine.plan_words import FULL, OPEN, bars, size, tokens
from engine.runtimes import hybrid
from engine.spec import GroupSize, MlaSpec
from tests.support.plans import DEEPSEEK_V3, GIB, GPT_OSS, MIXTRAL, QWEN3_30B, machine, spec

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
    assert plan.verdict == plan.fit_words == "CPU" and plan.with_gpu is None
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
    assert plan.fit_words == f"short by {size(plan.short_bytes)} of RAM"
    assert plan.decode_tok_s is None and plan.prefill_tok_s is None and not plan.bound_words
    assert f"does not fit: {plan.fit_words}" in plan.words()[0]


def test_impossible_contexts_are_refused_and_long_ones_warned_of() -> None:
    for bad in (0, -1):
        with pytest.raises(RequestError):
            make_plan(spec(), machine(), bad)
    plan = make_plan(spec(MIXTRAL), machine(500), 40000)
    assert plan.context == 40000 and any("32768 tokens" in line for line in plan.words())


def test_a_machine_whose_memory_is_unknown_promises_nothing_false() -> None:
    plan = make_plan(spec(), Hardware())
    assert plan.fits and plan.decode_tok_s is None
    assert any("memory is not known" in line for line in plan.words())
    assert any("ktchat doctor" in line for line in plan.words())


def test_foreign_models_are_llama_cpps() -> None:
    plan = make_plan(spec(GPT_OSS, "MXFP4"), machine(64, 24))
    assert plan.runtime == "llama.cpp" and plan.verdict == "CPU"
    assert plan.with_gpu is None and "llama.cpp" in plan.no_gpu


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
    assert (footprint.PAGE, footprint.CHUNK) == (hybrid.PAGE_SIZE, hybrid.CHUNK)


def test_layers_that_nobody_reads_take_no_memory() -> None:
    model = spec()
    with_more = dataclasses.replace(model, groups={**model.groups, "unused": GroupSize(10**9, 1)})
    assert make_plan(with_more, machine()).devices == make_plan(model, machine()).devices


# with GPUs


def gpu_plan(numbers: Numbers, hardware: Hardware, context: int | None = None) -> MemoryPlan:
    plan = make_plan(spec(numbers), hardware, context)
    assert plan.with_gpu is not None, plan.no_gpu
    return plan.with_gpu


@pytest.mark.parametrize(
    ("numbers", "vram", "verdict"),
    [
        (QWEN3_30B, (24,), "GPU"),
        (QWEN3_30B, (8,), "hybrid"),
        (QWEN3_30B, (6, 4), "hybrid"),
        (MIXTRAL, (24,), "hybrid"),
        (MIXTRAL, (24, 24), "GPU"),
        (DEEPSEEK_V3, (24,), "hybrid"),
        (DEEPSEEK_V3, (24, 12, 48), "hybrid"),
    ],
)
def test_every_byte_is_on_one_device(numbers: Numbers, vram: tuple[int, ...], verdict: str) -> None:
    model = spec(numbers)
    plan = gpu_plan(numbers, machine(600, *vram))
    assert plan.verdict == verdict
    assert plan.weights_bytes == model.weights_bytes
    assert part(plan, KV) == kv_bytes(model, plan.context)
    assert len(plan.devices) == len(vram) + 1
    for device in plan.devices:
        assert device.used <= device.total
    for group in ("attention", "router", "norms", "output", "shared experts", KV):
        assert all(s.label != group for s in ram_of(plan).segments)
    assert any(s.label == "embedding" for s in ram_of(plan).segments)


def test_what_is_left_of_the_vram_takes_whole_experts() -> None:
    plan = gpu_plan(QWEN3_30B, machine(64, 8))
    model = spec()
    expert = model.groups["experts"].bytes / (48 * 128)
    gpu = plan.devices[0]
    assert 0 < plan.experts_on_gpu < plan.experts == 48 * 128
    assert gpu.total - gpu.used < expert + 48  # what is left holds no further one
    on_gpu = next(s.bytes for s in gpu.segments if s.label == "routed experts")
    assert abs(on_gpu - plan.experts_on_gpu * expert) < expert
    assert f"VRAM holds {plan.experts_on_gpu} of 6144" in " ".join(plan.words())


def test_more_vram_never_takes_fewer_experts_or_a_shorter_context() -> None:
    plans = [gpu_plan(QWEN3_30B, machine(64, vram)) for vram in (4, 6, 8, 12, 16, 24, 48)]
    for less, more in itertools.pairwise(plans):
        assert less.max_context <= more.max_context
        if less.context == more.context:
            assert less.experts_on_gpu <= more.experts_on_gpu


def test_gpus_share_layers_by_their_free_memory() -> None:
    plan = gpu_plan(DEEPSEEK_V3, machine(600, 48, 24))
    big, small = (
        sum(s.bytes for s in device.segments if s.label == "attention")
        for device in plan.devices[:2]
    )
    assert 1.8 < big / small < 2.6


def test_a_gpu_without_free_memory_is_left_out() -> None:
    plan = gpu_plan(QWEN3_30B, machine(64, 24, 0.5))
    assert [device.name for device in plan.devices] == ["GPU 0", "RAM"]


@pytest.mark.parametrize("vram", [(24, 1.2), (1.2, 24), (3, 3, 3, 3)])
def test_small_gpus_beside_a_large_one_do_no_harm(vram: tuple[float, ...]) -> None:
    model = spec()
    plan = gpu_plan(QWEN3_30B, machine(64, *vram))
    assert plan.weights_bytes == model.weights_bytes
    assert all(device.used <= device.total for device in plan.devices)
    assert part(plan, "output") == model.groups["output"].bytes


def test_a_context_too_long_for_the_gpu_is_refused_with_the_longest() -> None:
    long = make_plan(spec(MIXTRAL), machine(100, 4), 32768)
    assert long.with_gpu is None and "tokens" in long.no_gpu
    most = int(long.no_gpu.split(";")[1].split()[0])
    assert make_plan(spec(MIXTRAL), machine(100, 4), most).with_gpu is not None
    assert make_plan(spec(MIXTRAL), machine(100, 4), most + 64).with_gpu is None
    tiny = make_plan(spec(DEEPSEEK_V3), machine(600, 2))
    assert tiny.with_gpu is None and "too small for this model's attention" in tiny.no_gpu


def test_the_longest_context_fits_and_one_page_more_does_not() -> None:
    hardware = machine(64, 8)
    most = gpu_plan(QWEN3_30B, hardware).max_context
    assert gpu_plan(QWEN3_30B, hardware, most).fits
    assert make_plan(spec(), hardware, most + 64).with_gpu is None


def test_ram_may_be_short_beside_a_gpu() -> None:
    plan = gpu_plan(QWEN3_30B, machine(4, 8))
    assert plan.verdict == "does not fit" and plan.short_of == "RAM"
    assert not make_plan(spec(), machine(4, 8)).fits


def test_a_reserve_is_kept() -> None:
    small = dataclasses.replace(machine(8, 8).gpus[0], display=True)
    assert reserve_bytes(small) == GIB
    assert reserve_bytes(machine(8, 8).gpus[0]) == 512 << 20
    assert reserve_bytes(machine(8, 80).gpus[0]) == 80 * GIB * 3 // 100
    plan = gpu_plan(QWEN3_30B, machine(64, 8))
    assert part(plan, WORKSPACE) == gpu_work_bytes(spec()) + workspace_bytes(spec())


def test_today_is_the_cpus_and_gpu_plans_claim_no_speed() -> None:
    plan = make_plan(spec(), machine(64, 24))
    assert plan.verdict == "CPU" and plan.runs_today and plan.decode_tok_s
    later = plan.with_gpu
    assert later is not None and later.verdict == "GPU" and not later.runs_today
    assert later.decode_tok_s is None and later.prefill_tok_s is None and not later.bound_words
    assert not any("tok/s" in line for line in later.words())


# words


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("hardware", [machine(64, 8, 12), machine(2), Hardware()])
def test_bars_keep_to_the_width_and_to_scale(width: int, hardware: Hardware) -> None:
    plan = make_plan(spec(), hardware)
    for one in (plan, plan.with_gpu):
        if one is None:
            continue
        lines = one.bars(width)
        assert all(len(line) <= width for line in lines)
        assert len(lines) == sum(len(device.segments) + 1 for device in one.devices)
        biggest = max(one.devices[-1].segments, key=lambda segment: segment.bytes)
        drawn = lines[-len(one.devices[-1].segments) :]
        cells = [line.count(FULL) + line.count(OPEN) for line in drawn]
        assert cells[[biggest.label in line for line in drawn].index(True)] == max(cells)
    assert bars(plan, 5) == bars(plan, 40)


def test_numbers_in_words() -> None:
    assert [size(n) for n in (0, 999, 1_000, 999_499, 12_345_678, 1_400_000_000, 12 * 10**10)] == [
        "0 B", "999 B", "1 kB", "999 kB", "12 MB", "1.4 GB", "120 GB",
    ]  # fmt: skip
    assert [tokens(n) for n in (5, 512, 1024, 32768, 1 << 20)] == ["5", "512", "1k", "32k", "1M"]


def test_a_plan_as_json() -> None:
    plan = make_plan(spec(), machine(64, 8))
    out = json.loads(json.dumps(plan.to_dict()))
    assert out["fits"] and out["verdict"] == "CPU" and out["with_gpu"]["verdict"] == "hybrid"
    assert out["devices"][0]["segments"][0] == {
        "label": "attention",
        "bytes": plan.devices[0].segments[0].bytes,
    }
    assert sum(s["bytes"] for s in out["devices"][0]["segments"]) == out["devices"][0]["used"]
