"""What is said of a reply's computation: pictures of characters, and bytes that follow from the file's tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.common.insight import ExpertCounts, Insight, encoded
from engine.gguf.file import GGUFFile
from engine.machine.types import Gpu
from engine.plan.placement import LayerPlace, Placement
from engine.plan.speed import DECODE_EFFICIENCY, memory_read_bytes, token_bytes
from engine.plan.token_reads import TokenReads, Used
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from ktchat.widgets.chat import insight_text
from ktchat.widgets.chat.heat_map import BARS, SHADES, half_by, heat_map, joined, sparkline
from tests.support.plans import machine
from tests.support.tiny import tiny_model


def counts(layers: int, experts: int, top_k: int, gpu: bool = False, seed: int = 1) -> ExpertCounts:
    rng = np.random.default_rng(seed)
    uses = rng.integers(0, 50, (layers, experts)).astype("<u4")
    there = encoded((uses // 2).tobytes()) if gpu else ""
    return ExpertCounts(2, layers, experts, top_k, encoded(uses.tobytes()), there)


def insight(experts: ExpertCounts | None, **changes: object) -> Insight:
    whole = Insight(
        *(300, 290, experts, "", 1_900_000_000, 400_000_000, (0.04, 0.003, 0.0, 0.006)),
        *(42.0, 900.0, 0.05, 0.5, (7, 10, 9, 11) * 7),
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def test_each_cell_is_an_expert_where_there_is_room() -> None:
    rows = heat_map([[0, 1, 4, 8, 7], [3, 3, 3, 3, 3]], 5, 2)
    assert [(row.first, row.last) for row in rows] == [(0, 0), (1, 1)]
    assert rows[0].cells == f"{SHADES[0]}{SHADES[1]}{SHADES[2]}{SHADES[4]}{SHADES[3]}"
    assert rows[1].cells == SHADES[2] * 5


@pytest.mark.parametrize("layers,experts", [(1, 1), (5, 8), (48, 128), (61, 384), (94, 512)])
@pytest.mark.parametrize("width,height", [(1, 1), (8, 6), (33, 7), (128, 48), (600, 100)])
def test_a_map_fits_and_every_use_is_in_it(
    layers: int, experts: int, width: int, height: int
) -> None:
    table = [[0] * experts for _ in range(layers)]
    table[-1][-1] = 1
    rows = heat_map(table, width, height)
    many = joined(layers, experts, width, height)
    assert len(rows) <= height and all(len(row.cells) <= width for row in rows)
    assert [row.first for row in rows] == list(range(0, layers, many.layers))
    assert rows[-1].last == layers - 1
    assert rows[-1].cells[-1] != SHADES[0], "the one expert that was used"
    assert "".join(row.cells for row in rows).strip(SHADES[0]) == rows[-1].cells[-1]


def test_nothing_used_is_an_empty_map() -> None:
    assert {row.cells for row in heat_map([[0] * 4] * 3, 4, 3)} == {SHADES[0] * 4}


@pytest.mark.parametrize(
    "uses,fewest",
    [([], 0), ([0, 0], 0), ([1], 1), ([1, 1, 1, 1], 2), ([9, 1, 1, 1], 1), ([3, 0, 3, 2], 2)],
)
def test_how_few_experts_do_half_of_the_work(uses: list[int], fewest: int) -> None:
    assert half_by(uses) == fewest


def test_a_sparkline_goes_from_0_to_the_highest() -> None:
    assert sparkline([0, 4, 8], 10) == BARS[0] + BARS[4] + BARS[7]
    assert sparkline([1, 3, 8, 8], 2) == BARS[2] + BARS[7]
    assert sparkline([], 5) == sparkline([0, 0], 5) == ""


def test_the_last_slice_counts_as_long_as_it_was() -> None:
    fast = insight(None, slices=(10, 10, 8), slice_seconds=1.0, token_seconds=2.8 / 27)
    assert insight_text.speeds(fast) == pytest.approx([10.0, 10.0, 10.0])
    cut = dataclasses.replace(fast, slices=(10, 10, 1), token_seconds=2.05 / 20)
    assert insight_text.speeds(cut) == [10.0, 10.0]


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("width,height", [(34, 5), (38, 10), (76, 20), (72, 45), (160, 60)])
@pytest.mark.parametrize(
    "shape", [(1, 2, 1), (5, 8, 2), (48, 128, 8), (94, 512, 10), (510, 1024, 8)]
)
def test_all_lines_fit_and_say_what_is_known(
    shape: tuple[int, int, int], width: int, height: int, gpu: bool
) -> None:
    rows = insight_text.lines(insight(counts(*shape, gpu)), width, height)
    assert max(row.cell_length for row in rows) <= width
    text = " ".join(row.plain.strip() for row in rows)
    for words in ("20.0 tok/s", "limited by reading RAM", "the prompt is not", "half of a layer's"):
        assert words in text
    assert ("on the GPU" in text) is gpu
    if height >= 40 and shape[0] <= 94:
        assert len(rows) <= height


@pytest.mark.parametrize("why,words", [("dense", "no experts"), ("untold", "llama.cpp")])
def test_without_experts_the_rest_is_shown(why: str, words: str) -> None:
    rows = insight_text.lines(insight(None, no_experts=why), 60, 20)
    text = "\n".join(row.plain for row in rows)
    assert words in text and "20.0 tok/s" in text and "1.9 GB of RAM" in text


def test_a_speed_of_memory_that_nobody_measured_is_said() -> None:
    rows = insight_text.lines(
        insight(None, no_experts="dense", hop_seconds=(), ram_gb_s=0.0), 60, 20
    )
    assert "ktchat doctor" in "\n".join(row.plain for row in rows)


# ---- bytes ------------------------------------------------------------------------------------------


def read(path: Path) -> ModelSpec:
    with GGUFFile.open(path) as file:
        return read_spec(file)


def tensor_bytes(path: Path) -> dict[str, int]:
    """By the file itself, as another library reads it."""
    return {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}


def used(spec: ModelSpec, passes: int, tokens: int, reads: list[int]) -> Used:
    assert spec.moe is not None
    shape = spec.moe_layers, spec.moe.experts
    uses = np.zeros(shape, np.int64)
    uses[:, : spec.moe.top_k] = tokens
    first = spec.moe.leading_dense
    return Used(first, spec.moe.top_k, tokens, uses, None, passes, np.array(reads))


@pytest.mark.parametrize(
    "architecture,variant", [("qwen3moe", ""), ("deepseek2", "v2-lite"), ("gpt-oss", "narrow")]
)
def test_a_token_reads_what_the_file_says(architecture: str, variant: str, tmp_path: Path) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant)
    spec, sizes = read(path), tensor_bytes(path)
    assert spec.moe is not None
    reads = TokenReads(spec, machine(64, bandwidth=40), "native")
    routed = {name: size for name, size in sizes.items() if "_exps" in name}
    whole = sum(sizes.values()) - sum(routed.values())
    table = sizes["token_embd.weight"]
    if not spec.tied:
        whole -= table - table // spec.vocab
    one_by_one = used(spec, 20, 20, [20 * spec.moe.top_k] * spec.moe_layers)
    ram, vram = reads.bytes_per_token(100, 20, one_by_one)
    memory = memory_read_bytes(spec, 100)
    wanted = whole + sum(routed.values()) * spec.moe.top_k / spec.moe.experts + memory
    assert vram == 0 and ram == pytest.approx(wanted, rel=0.01)
    # 20 tokens in 10 passes, which read 15 experts of each layer in all.
    ram, _ = reads.bytes_per_token(100, 20, used(spec, 10, 20, [15] * spec.moe_layers))
    wanted = (10 * (whole + memory) + 15 / spec.moe.experts * sum(routed.values())) / 20
    assert ram == pytest.approx(wanted, rel=0.01)
    assert reads.bytes_per_token(100, 20, None)[0] == pytest.approx(
        token_bytes(spec, 200), rel=0.001
    )


def test_where_experts_were_decides_which_memory_was_read(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    spec, sizes = read(path), tensor_bytes(path)
    assert spec.moe is not None
    placement = Placement((LayerPlace(None), LayerPlace(0, 2)), 256, "f16")
    found = dataclasses.replace(machine(64, bandwidth=40), gpus=(_gpu(),))
    reads = TokenReads(spec, found, "native", placement)
    top_k = spec.moe.top_k
    counted = used(spec, 10, 10, [10 * top_k] * 2)
    there = np.zeros_like(counted.uses)
    there[1] = counted.uses[1] // 2
    ram, vram = reads.bytes_per_token(0, 10, dataclasses.replace(counted, on_device=there))
    each = [sum(s for n, s in sizes.items() if n.startswith(f"blk.{i}.")) for i in range(2)]
    experts = [
        sum(s for n, s in sizes.items() if f"blk.{i}." in n and "_exps" in n) for i in range(2)
    ]
    share = top_k / spec.moe.experts
    assert ram == pytest.approx(
        each[0] - experts[0] + share * (experts[0] + experts[1] / 2), rel=0.01
    )
    output = sizes.get("output.weight", sizes["token_embd.weight"]) + sizes["output_norm.weight"]
    assert vram == pytest.approx(each[1] - experts[1] + share * experts[1] / 2 + output, rel=0.02)


def _gpu() -> Gpu:
    return Gpu("card", 8 << 30, 8 << 30, compute="8.9", read_gb_s=900)


def test_what_no_hop_explains_is_arithmetic(tmp_path: Path) -> None:
    spec = read(tiny_model("qwen3moe", tmp_path))
    reads = TokenReads(spec, machine(64, bandwidth=40), "native")
    reading = 2e9 / (40e9 * DECODE_EFFICIENCY["native"])
    hops = reads.hop_seconds(2_000_000_000, 0, 0.1)
    assert hops == pytest.approx((reading, 0.0, 0.0, 0.1 - reading))
    assert Insight(1, 1, hop_seconds=hops).hop == "RAM"
    assert Insight(1, 1, hop_seconds=reads.hop_seconds(2_000_000_000, 0, 0.2)).hop == "arithmetic"
    assert reads.hop_seconds(4_000_000_000, 0, 0.01)[3] == 0.0, "faster than foretold"
    unmeasured = TokenReads(spec, machine(64, bandwidth=0), "native")
    assert unmeasured.hop_seconds(2_000_000_000, 0, 0.1) == ()
