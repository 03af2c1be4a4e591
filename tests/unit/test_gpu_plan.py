"""Plans with GPUs: every byte is on one device, no device is overfull, and the words say why."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest

from engine.catalog import catalog
from engine.catalog.numbers import Numbers
from engine.common.units import byte_size, short_count
from engine.errors import RequestError
from engine.machine import profiles
from engine.machine.types import GpuUser, Hardware, Software
from engine.plan import report
from engine.plan.footprint import PAGE, state_bytes, window_positions, workspace_bytes
from engine.plan.gpu_footprint import (
    HOST,
    attention_work,
    chunk_bytes,
    layer_kv_bytes,
    layer_memory_bytes,
    prompt_chunk,
    reserve_bytes,
    stream_buffers,
    work_bytes,
)
from engine.plan.gpu_ledger import USUAL_CONTEXT
from engine.plan.gpu_speed import OVERLAP, PCIE_EFFICIENCY, share_of_bound
from engine.plan.memory_plan import KV, STATES, WINDOWS, DevicePlan, MemoryPlan
from engine.plan.placement import LayerPlace, Placement
from engine.plan.planner import make_plan
from engine.protocol import Auto
from engine.spec.spec import ModelSpec
from kernels.sizes import STREAM_CHUNKS
from tests.support.plans import (
    DEEPSEEK_V3,
    FOREIGN,
    GIB,
    GPT_OSS,
    LLAMA_70B,
    MIXTRAL,
    QWEN3_30B,
    QWEN36_35B,
    machine,
    spec,
)
from tests.support.prompt_timeline import overlap


def dense() -> ModelSpec:
    return dataclasses.replace(spec(LLAMA_70B), moe=None)


def part(devices: tuple[DevicePlan, ...], label: str) -> int:
    return sum(s.bytes for d in devices for s in d.segments if s.label == label)


def check(model: ModelSpec, hardware: Hardware, plan: MemoryPlan) -> None:
    """A plan with GPUs is legal: places exist, ledgers sum to them, nothing is overfull."""
    placement = plan.placement
    assert placement is not None and len(placement.layers) == model.layers
    assert placement.context == plan.context >= 1
    experts = model.moe.experts if model.moe else 0
    vram, ram = plan.devices[:-1], plan.devices[-1]
    assert ram.kind == "RAM" and len(vram) == len(placement.gpus)
    on_cpu, in_ram = 0, 0
    sums = dict.fromkeys(placement.gpus, 0)
    for number, (place, groups) in enumerate(
        zip(placement.layers, model.layer_groups, strict=True)
    ):
        routed = groups["experts"].device if model.is_moe_layer(number) else 0
        assert 0 <= place.experts <= (experts if routed else 0)
        if place.gpu is None:
            on_cpu += sum(size.resident for size in groups.values())
            continue
        assert hardware.gpus[place.gpu].usable
        sums[place.gpu] += sum(s.device for s in groups.values()) - routed
        sums[place.gpu] += place.experts * -(-routed // experts) if routed else 0
        in_ram += groups["experts"].resident if routed and place.experts < experts else 0
    order = [-1 if place.gpu is None else place.gpu for place in placement.layers]
    assert order == sorted(order)
    for number, device in zip(placement.gpus, vram, strict=True):
        assert device.used <= device.total == hardware.gpus[number].free
        here = [layer for layer, gpu in enumerate(order) if gpu == number]
        kinds = Counter(map(model.kind, here))
        cache = kinds["full"] * layer_kv_bytes(model, plan.context, placement.kv)
        assert part((device,), KV) == cache
        if kinds["window"]:
            windows = model.attention("window").row_bytes * kinds["window"]
            windows *= window_positions(model, placement.chunk)
            windows = windows if placement.kv == "f16" else windows * 17 // 32
            assert part((device,), WINDOWS) == windows
            cache += windows
        states = part((device,), STATES)
        assert states == kinds["recurrent"] * state_bytes(model) // max(1, model.recurrent_layers)
        assert part((device,), "reserve") == reserve_bytes(hardware.gpus[number])
        weights = sum(s.bytes for s in device.segments) - cache - states
        weights -= part((device,), "workspace") + part((device,), "reserve")
        assert weights == sums[number] + part((device,), "output")
    assert (part(plan.devices, "output") > 0) and part(plan.devices[-2:], "output") > 0
    embedding = model.groups["embedding"].resident
    ram_weights = sum(
        s.bytes
        for s in ram.segments
        if s.label not in (KV, WINDOWS, STATES, "workspace", "reserve")
    )
    assert ram_weights == embedding + on_cpu + in_ram
    assert plan.fits == (ram.used <= ram.total)
    whole = not order.count(-1) and all(
        place.experts == experts
        for number, place in enumerate(placement.layers)
        if model.is_moe_layer(number)
    )
    assert plan.verdict == ("does not fit" if not plan.fits else "GPU" if whole else "hybrid")
    assert plan.experts_on_gpu == sum(place.experts for place in placement.layers)


@pytest.mark.parametrize("profile", [name for name in profiles.names() if "no-gpu" not in name])
def test_every_model_of_the_catalogue_has_a_legal_plan_on_every_machine(profile: str) -> None:
    hardware = profiles.load(profile)
    seen = set()
    for model in catalog.load():
        for context in (None, "auto"):
            chosen = catalog.choose(model, hardware).quant.name
            one = model.spec(chosen)
            wish: Auto | None = "auto" if context == "auto" else None
            plan = make_plan(one, hardware, wish)
            seen.add(plan.verdict)
            if plan.placement is None:
                assert plan.no_gpu and plan.runtime == "llama.cpp"
            else:
                check(one, hardware, plan)
    assert seen & {"GPU", "hybrid"}


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
        (DEEPSEEK_V3, (8,), "hybrid"),
    ],
)
@pytest.mark.parametrize("context", [None, 4096])
def test_every_byte_is_on_one_device(
    numbers: Numbers, vram: tuple[int, ...], verdict: str, context: int | None
) -> None:
    model, hardware = spec(numbers), machine(600, *vram)
    plan = make_plan(model, hardware, context)
    check(model, hardware, plan)
    assert plan.verdict == plan.fit_words == verdict and not plan.no_gpu


def test_a_dense_model_is_helped_by_a_gpu_that_does_not_hold_it() -> None:
    model, hardware = dense(), machine(64, 24)
    plan = make_plan(model, hardware)
    check(model, hardware, plan)
    assert plan.verdict == "hybrid" and plan.placement is not None
    assert 20 < plan.placement.on_cpu < 60
    assert f"the first {plan.placement.on_cpu} run on the CPU" in " ".join(report.words(plan))
    alone = make_plan(model, hardware, device="cpu")
    assert alone.decode_tok_s and plan.decode_tok_s and plan.decode_tok_s > alone.decode_tok_s
    assert make_plan(model, machine(64, 24, 24, 24)).verdict == "GPU"


def test_a_model_that_ram_alone_does_not_hold_may_fit_with_whole_layers_in_vram() -> None:
    model = spec(MIXTRAL)  # 27 GB of experts
    assert not make_plan(model, machine(20, 24), device="cpu").fits
    plan = make_plan(model, machine(20, 24))
    check(model, machine(20, 24), plan)
    assert plan.verdict == "hybrid" and plan.placement is not None
    alone = sum(place.experts == 8 for place in plan.placement.layers)
    assert 0 < alone < 32 and f"The experts of {alone} layers are in VRAM only" in " ".join(
        plan.why
    )
    roomy = make_plan(model, machine(100, 24))
    assert roomy.placement is not None
    assert {place.experts for place in roomy.placement.layers} <= {4, 5, 6}


def test_what_does_not_fit_says_what_ram_lacks() -> None:
    plan = make_plan(spec(), machine(4, 8))
    check(spec(), machine(4, 8), plan)
    assert not plan.fits and plan.short_of == "RAM" and plan.decode_tok_s is None
    assert plan.fit_words == f"short by {byte_size(plan.short_bytes)} of RAM"
    assert (
        f"needs {byte_size(plan.devices[-1].used)} of RAM, 4.3 GB are free" in report.words(plan)[1]
    )


def test_more_vram_never_means_fewer_slots_or_a_shorter_context() -> None:
    for numbers in (QWEN3_30B, DEEPSEEK_V3):
        plans = [make_plan(spec(numbers), machine(600, gib), 4096) for gib in range(6, 50, 3)]
        slots = [plan.experts_on_gpu for plan in plans]
        assert slots == sorted(slots) and slots[0] < slots[-1]
        for less, more in itertools.pairwise(plans):
            assert less.placement is not None and more.placement is not None
            assert less.placement.on_cpu >= more.placement.on_cpu
            if less.placement.on_cpu == more.placement.on_cpu:
                assert less.max_context <= more.max_context


# The context.


def test_auto_is_the_longest_context_that_fits() -> None:
    model = spec()
    for hardware in (machine(64, 8), machine(64, 6, 4)):
        plan = make_plan(model, hardware, "auto")
        check(model, hardware, plan)
        assert plan.context == plan.max_context < model.context
        assert make_plan(model, hardware, plan.context).fits
        longer = make_plan(model, hardware, plan.context + PAGE)
        assert longer.placement is not None and longer.placement.on_cpu > 0
    small = make_plan(spec(DEEPSEEK_V3), machine(600, 9))
    assert small.context >= USUAL_CONTEXT and small.placement is not None
    assert make_plan(model, machine(64, 80), "auto").context == model.context
    alone = make_plan(model, machine(20), "auto")
    assert alone.context == alone.max_context and alone.fits
    assert not make_plan(model, machine(20), alone.context + 1).fits


def test_a_context_that_nobody_asked_for_leaves_a_model_whole_in_vram() -> None:
    model, hardware = spec(), machine(64, 21)
    plan = make_plan(model, hardware)
    assert plan.verdict == "GPU" and USUAL_CONTEXT <= plan.context < 32768
    assert make_plan(model, hardware, plan.context + 256).verdict == "hybrid"
    assert make_plan(model, hardware, 32768).verdict == "hybrid"


def test_the_context_of_layers_on_the_cpu_is_in_ram() -> None:
    model = dense()
    short, long = (make_plan(model, machine(64, 24), context) for context in (1024, 65536))
    assert short.placement is not None and long.placement is not None
    assert long.placement.on_cpu > short.placement.on_cpu
    assert part(long.devices[-1:], KV) > part(short.devices[-1:], KV) > 0


def test_a_cache_in_8_bits_takes_half_the_room() -> None:
    model, hardware = spec(), machine(64, 8)
    usual, small = (make_plan(model, hardware, 16384, kv=kind) for kind in ("f16", "q8"))
    check(model, hardware, small)
    assert part(small.devices, KV) * 64 == part(usual.devices, KV) * 34
    assert small.experts_on_gpu > usual.experts_on_gpu
    assert "The KV cache is kept in 8 bits" in small.why
    longest = [make_plan(model, hardware, "auto", kv=kind).context for kind in ("f16", "q8")]
    assert longest[1] > 1.8 * longest[0]


# Whether there is a plan.


def test_who_wants_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(RequestError, match="No NVIDIA GPU"):
        make_plan(spec(), machine(64), device="gpu")
    with pytest.raises(RequestError, match=r"llama\.cpp"):
        make_plan(spec(FOREIGN, "MXFP4"), machine(64, 24), device="gpu")


def test_8_bits_are_a_wish() -> None:
    for hardware, device in ((machine(64), "auto"), (machine(64, 24), "cpu")):
        plans = [
            make_plan(spec(), hardware, 8192, device=device, kv=kv)  # type: ignore[arg-type]
            for kv in ("f16", "q8")
        ]
        assert [plan.verdict for plan in plans] == ["CPU", "CPU"]
        assert "The KV cache is kept in 8 bits" in plans[1].why
        sizes = [dict(plan.devices[0].segments)["KV cache"] for plan in plans]
        assert sizes[1] / sizes[0] == pytest.approx(17 / 32 / (65 / 64), rel=1e-3)
        assert plans[1].max_context >= plans[0].max_context
    odd = make_plan(spec(dataclasses.replace(QWEN3_30B, head=80)), machine(64, 24), kv="q8")
    assert odd.placement is not None and odd.placement.kv == "f16"
    assert any("80 features" in line for line in odd.why)


def test_the_cpu_may_be_asked_for() -> None:
    asked = make_plan(spec(), machine(64, 24), device="cpu")
    assert asked.verdict == "CPU" and asked.placement is None and not asked.no_gpu
    wished = make_plan(spec(), dataclasses.replace(machine(64, 24), use_gpus=False))
    assert wished.verdict == "CPU" and "device is set" in wished.no_gpu
    assert make_plan(
        spec(), dataclasses.replace(machine(64, 24), use_gpus=False), device="gpu"
    ).fits


@pytest.mark.parametrize(
    ("software", "words"),
    [
        (Software(), "torch, triton"),
        (Software(torch="2.13.0", triton="3.7"), "built for the CPU only"),
        (Software(torch="2.13.0", torch_cuda="13.0"), "triton"),
    ],
)
def test_without_its_software_the_cpu_computes_and_the_command_is_told(
    software: Software, words: str
) -> None:
    hardware = dataclasses.replace(machine(64, 24), software=software, assumed="")
    plan = make_plan(spec(), hardware)
    assert plan.verdict == "CPU" and words in plan.no_gpu and "pip install" in plan.gpu_fix
    assert any(line.endswith(plan.gpu_fix) for line in report.words(plan))
    assert any(plan.no_gpu in line for line in report.words(plan))
    complete = Software(torch="2.13.0", torch_cuda="13.0", triton="3.7")
    assert make_plan(spec(), dataclasses.replace(hardware, software=complete)).verdict == "GPU"


@pytest.mark.parametrize(("compute", "usable"), [("7.5", False), ("", False), ("8.0", True),
                                                 ("12.0", True), ("x.y", False)])  # fmt: skip
def test_old_gpus_are_left_out(compute: str, usable: bool) -> None:
    hardware = machine(64, 24, 24)
    old = tuple(dataclasses.replace(gpu, compute=compute) for gpu in hardware.gpus)
    plan = make_plan(spec(), dataclasses.replace(hardware, gpus=old))
    assert (plan.placement is not None) == usable
    assert usable or "8.0 or higher is needed: GPU 0" in plan.no_gpu
    mixed = dataclasses.replace(hardware, gpus=(old[0], hardware.gpus[1]))
    plan = make_plan(spec(), mixed)
    assert plan.placement is not None and plan.placement.gpus == ((0,) if usable else (1,))


@pytest.mark.parametrize("vram", [(24, 1.2), (1.2, 24), (3, 3, 3, 3), (24, 0.5)])
def test_small_gpus_beside_a_large_one_do_no_harm(vram: tuple[float, ...]) -> None:
    hardware = machine(64, *vram)
    check(spec(), hardware, make_plan(spec(), hardware))


def test_a_gpu_that_is_full_says_who_fills_it() -> None:
    hardware = machine(64, 24)
    held = GpuUser("python", 22 * GIB), GpuUser("firefox", GIB // 2)
    full = dataclasses.replace(hardware.gpus[0], free=GIB, users=held)
    plan = make_plan(spec(), dataclasses.replace(hardware, gpus=(full,)))
    assert plan.verdict == "CPU" and "no room for a layer" in plan.no_gpu
    assert "python 23.6 GB" in plan.no_gpu and "1.1 GB free" in plan.no_gpu
    part_full = dataclasses.replace(hardware.gpus[0], free=12 * GIB, users=held)
    plan = make_plan(spec(), dataclasses.replace(hardware, gpus=(part_full,)))
    assert plan.verdict == "hybrid" and plan.devices[0].total == 12 * GIB
    assert any("python 23.6 GB" in line and "planned around" in line for line in report.words(plan))
    assert plan.experts_on_gpu < make_plan(spec(), hardware).experts_on_gpu


def test_a_context_too_long_for_vram_is_refused_with_the_longest() -> None:
    model = dataclasses.replace(spec(MIXTRAL), context=1 << 22)
    plan = make_plan(model, machine(600, 4), 1 << 21)
    assert plan.placement is None and "tokens" in plan.no_gpu
    most = int(plan.no_gpu.split(":")[1].split()[0].replace(",", ""))
    assert make_plan(model, machine(600, 4), most).placement is not None
    assert make_plan(model, machine(600, 4), most + PAGE).placement is None


def test_a_context_too_long_for_ram_is_refused_with_the_longest() -> None:
    plan = make_plan(spec(), machine(64, 24), 4_000_000)
    assert not plan.fits
    (words,) = [
        line for line in report.words(plan) if line.startswith("The longest context that fits")
    ]
    assert words.endswith(short_count(plan.max_context))
    assert make_plan(spec(), machine(64, 24), plan.max_context).fits
    nowhere = make_plan(spec(DEEPSEEK_V3), machine(64, 24))
    assert not nowhere.fits and nowhere.max_context == 0
    assert not any("longest context" in line for line in report.words(nowhere))


def test_who_asks_for_a_gpu_without_its_software_is_told_the_command() -> None:
    hardware = dataclasses.replace(machine(64, 24), software=Software(torch="2"), assumed="")
    with pytest.raises(RequestError) as caught:
        make_plan(spec(), hardware, device="gpu")
    todo = caught.value.todo
    assert todo.startswith("Run `") and "pip install triton" in todo.replace("'", "")
    assert todo.endswith("`, or use --device cpu")


def test_a_reserve_is_kept() -> None:
    small = dataclasses.replace(machine(8, 8).gpus[0], display=True)
    assert reserve_bytes(small) == GIB
    assert reserve_bytes(machine(8, 8).gpus[0]) == 512 << 20
    assert reserve_bytes(machine(8, 80).gpus[0]) == 80 * GIB * 3 // 100


# Chunks of a prompt.


def test_longer_chunks_are_counted_where_experts_stream() -> None:
    model = spec()
    for vram, chunk in ((8, 2048), (12, 4096), (24, 512)):
        hardware = machine(64, vram)
        plan = make_plan(model, hardware, 8192)
        assert plan.placement is not None and plan.placement.chunk == chunk
        work = part(plan.devices[:1], "workspace")
        usual = work_bytes(model, 8192, True, streams=chunk > 512)
        assert work >= usual + chunk_bytes(model, chunk) - chunk_bytes(model, 512)
        ram = part(plan.devices[1:], "workspace")
        assert ram == workspace_bytes(model, chunk) + HOST
    windowed = spec(GPT_OSS, "MXFP4")
    rings = [layer_memory_bytes(windowed, 0, 8192, "f16", chunk) for chunk in (512, 2048)]
    row = windowed.attention("window").row_bytes
    assert windowed.kind(0) == "window" and rings[1] - rings[0] == 1536 * row


def test_streamed_prompts_are_predicted_by_the_longer_of_copies_and_products() -> None:
    model = spec(DEEPSEEK_V3)
    plan = make_plan(model, machine(600, 24))
    assert plan.placement is not None and plan.placement.chunk == 2048
    assert plan.prefill_bound_words == "limited by PCIe: 32 GB/s"
    missed = sum(
        (1 - place.experts / 256) * groups["experts"].device
        for place, groups in zip(plan.placement.layers, model.layer_groups, strict=True)
        if place.gpu is not None and "experts" in groups
    )
    copies = missed / (16 * 1.969e9 * PCIE_EFFICIENCY) / OVERLAP
    assert plan.placement.on_cpu == 0
    assert plan.prefill_tok_s == pytest.approx(2048 / copies, rel=1e-3)
    assert any("of prompt (predicted" in line for line in report.words(plan))


@pytest.mark.parametrize("numbers", [QWEN3_30B, QWEN36_35B, GPT_OSS])
@pytest.mark.parametrize("tokens", STREAM_CHUNKS)
@pytest.mark.parametrize("resident", [0.0, 0.25])
def test_copies_and_products_overlap(numbers: Numbers, tokens: int, resident: float) -> None:
    """The engine's own order of fetching, on simulated streams: `python -m tests.support.prompt_timeline`."""
    found = overlap(spec(numbers, "MXFP4" if numbers is GPT_OSS else "Q4_K_M"), tokens, resident)
    assert found.share >= OVERLAP > 0.85


@pytest.mark.parametrize("tokens", STREAM_CHUNKS)
@pytest.mark.parametrize("resident", [0.0, 0.25, 0.5])
def test_copies_go_on_while_long_attention_computes(tokens: int, resident: float) -> None:
    assert overlap(spec(DEEPSEEK_V3), tokens, resident).share > 0.85


def test_the_longest_chunk_of_large_layers_is_for_large_gpus() -> None:
    """Its buffers are an eighth of a layer each: what they take counts before it is chosen."""
    model, small = spec(DEEPSEEK_V3), spec()
    assert [stream_buffers(model, tokens) >> 20 for tokens in (512, 2048, 4096)] == [
        1162,
        1162,
        3486,
    ]
    assert stream_buffers(small, 4096) == stream_buffers(small, 512)
    assert prompt_chunk(model, 23 << 30) == 2048 and prompt_chunk(model, 130 << 30) == 4096


def test_a_prompt_s_attention_counts() -> None:
    """With latents, which is what DeepSeek's heads attend with: 128 of them, 2 * 512 + 64 features."""
    model = spec(DEEPSEEK_V3)
    assert attention_work(model, 3, 2048) == 1024 * 128 * 1088
    windowed = spec(GPT_OSS, "MXFP4")
    kinds = {windowed.kind(n): attention_work(windowed, n, 2048) for n in range(2)}
    assert kinds["window"] < kinds["full"]


# Speeds.


def test_speeds_are_predictions_until_a_run_replaces_them() -> None:
    plan = make_plan(spec(), machine(64, 24))
    assert plan.decode_tok_s and plan.prefill_tok_s and not plan.measured
    assert plan.bound_words == "limited by VRAM bandwidth: 1,000 GB/s"
    assert any("not yet measured on a GPU" in line for line in report.words(plan))
    hybrid = make_plan(spec(), machine(64, 8))
    assert hybrid.bound_words == "limited by RAM bandwidth: 50 GB/s"


def test_a_faster_machine_is_never_predicted_slower() -> None:
    speeds = [
        make_plan(spec(), machine(64, gib), 4096).decode_tok_s or 0 for gib in range(4, 26, 2)
    ]
    assert speeds == sorted(speeds)
    speeds = [
        make_plan(spec(), machine(64, 8, bandwidth=speed), 4096).decode_tok_s or 0
        for speed in (20, 40, 80)
    ]
    assert all(less < more for less, more in itertools.pairwise(speeds))


def test_nothing_is_predicted_for_a_gpu_of_unknown_speed() -> None:
    hardware = machine(64, 24)
    unknown = dataclasses.replace(hardware.gpus[0], read_gb_s=0.0)
    plan = make_plan(spec(), dataclasses.replace(hardware, gpus=(unknown,)))
    assert plan.verdict == "GPU" and plan.decode_tok_s is None
    assert any("memory speed of GPU 0 is not known" in line for line in report.words(plan))


def beside(slots: int, read_gb_s: float, compute: str) -> float:
    """The share of the bound of qwen3-30b-a3b on such a GPU beside RAM of 75 GB/s, by the plan's own arithmetic."""
    desktop = machine(64, 24, bandwidth=75)
    gpu = dataclasses.replace(desktop.gpus[0], read_gb_s=read_gb_s, compute=compute)
    placement = Placement((LayerPlace(0, slots),) * 48, 4096, "f16")
    return share_of_bound(spec(), dataclasses.replace(desktop, gpus=(gpu,)), placement)


@pytest.mark.parametrize(
    ("slots", "read_gb_s", "compute", "least"),
    [(128, 1008, "8.9", 0.67), (0, 1008, "8.9", 0.85), (128, 4300, "9.0", 0.45)],
    ids=["whole, RTX 4090", "split, RTX 4090", "whole, H200"],
)
def test_decoding_comes_near_what_reading_allows(
    slots: int, read_gb_s: float, compute: str, least: float
) -> None:
    assert least < beside(slots, read_gb_s, compute) < 1


def test_what_devices_can_counts() -> None:
    """An L2 cache that holds what follows a layer's experts, and kernels that begin early."""
    assert beside(0, 1008, "8.9") > beside(0, 1008, "8.6") + 0.01
    assert beside(128, 1008, "9.0") > beside(128, 1008, "8.9") + 0.01
    assert all(beside(slots, 1008, "8.9") < 1 for slots in range(0, 129, 16))
