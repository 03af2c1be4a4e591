"""What plans count on a GPU is what loading puts there and what kernels ask for."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from engine.gguf.file import GGUFFile
from engine.machine.types import Hardware
from engine.model.transformer import Transformer, cache_shape
from engine.plan.footprint import state_slots
from engine.plan.gpu_footprint import (
    PROCESSORS,
    attention_scratch,
    layer_kv_bytes,
    takes_flash,
)
from engine.plan.gpu_ledger import GpuRoom
from engine.protocol import KvKind
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from kernels.gpu.attention.plan import AttentionPlan, plan_attention, plan_latent_attention
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.quant.weight import packed_bytes
from kernels.gpu.sizes import BUCKETS
from kernels.ops import CacheShape, Tensor
from kernels.recurrent import StateShape
from tests.support.plans import DEEPSEEK_V3, MIXTRAL, QWEN3_30B, spec
from tests.support.tiny import MODELS, tiny_model


class Scales:
    """An op set that only counts what the weights made with it take on a GPU."""

    name = "scales"

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()

    def matrix(self, tensor: Tensor) -> None:
        part = "experts" if "_exps." in tensor.name else "fixed"
        self.bytes[part] += packed_bytes(tensor.type, tensor.shape)

    def vector(self, tensor: Tensor) -> None:
        self.bytes["fixed"] += 4 * math.prod(tensor.shape)

    def table(self, tensor: Tensor) -> None:
        return None

    def repacks(self, tensor: Tensor) -> bool:
        return False

    def kv_cache(self, shape: CacheShape) -> None:
        self.bytes["cache"] += shape.pages * shape.page_size * shape.bytes_per_position

    def recurrent_state(self, shape: StateShape) -> None:
        self.bytes["cache"] += shape.slots * shape.bytes_per_slot

    def record(self, forward: Any) -> Any:
        return forward


@pytest.mark.parametrize(("architecture", "variant"), MODELS)
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_each_layers_bytes_are_those_that_loading_makes(
    architecture: str, variant: str, kind: str, tmp_path: Path
) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant, expert_type=kind, matrix_type=kind)
    with GGUFFile.open(path) as file:
        model = read_spec(file)
        scales = [Scales() for _ in range(model.layers)]
        context = 100
        pages = -(-context // 32) + 1
        slots = state_slots(model)
        Transformer(file, model, scales, pages, 32, slots=slots)  # type: ignore[arg-type]
    room = GpuRoom(model, Hardware(), "f16", ())
    planned = room.layers(context)
    for layer, (found, wanted) in enumerate(zip(scales, planned, strict=True)):
        output = room.output if layer == model.layers - 1 else 0
        assert found.bytes["fixed"] + found.bytes["cache"] == wanted.fixed + output, layer
        assert found.bytes["experts"] == wanted.experts * wanted.expert, layer


@pytest.mark.parametrize("numbers", [QWEN3_30B, MIXTRAL, DEEPSEEK_V3])
@pytest.mark.parametrize("kind", get_args(KvKind))
@pytest.mark.parametrize("context", [1, 32, 33, 5000])
def test_the_cache_is_as_large_as_its_shape_says(numbers: Any, kind: KvKind, context: int) -> None:
    model = spec(numbers)
    shape = cache_shape(model, -(-context // 32) + 1, 32, kind=kind)
    found = layer_kv_bytes(model, context, kind) * model.layers
    assert found == shape.pages * shape.page_size * shape.bytes_per_position


@pytest.mark.parametrize("numbers", [QWEN3_30B, MIXTRAL, DEEPSEEK_V3])
@pytest.mark.parametrize("context", [200, 4096, 32768])
def test_splits_take_what_the_attention_plans_take(numbers: Any, context: int) -> None:
    model = spec(numbers)
    total = 0
    for queries in BUCKETS:
        scratch = Scratch.allocate(attention(model, queries, context), queries, "meta")
        bytes_of = 4 * (scratch.parts.numel() + scratch.sums.numel())
        total += bytes_of if len(scratch.sums) > 1 else 0
    assert attention_scratch(model, model.attention("full"), context) == total


def attention(model: ModelSpec, queries: int, context: int) -> AttentionPlan:
    if model.mla is not None:
        mla = model.mla
        heads = (1, queries, model.heads, mla.kv_lora, mla.rope)
        return plan_latent_attention(*heads, context, PROCESSORS)
    heads = (1, queries, model.heads, model.kv_heads, model.head_dim)
    return plan_attention(*heads, model.value_dim, context, PROCESSORS)


def test_activations_are_those_of_the_op_set() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.activations"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, (measured, planned) in json.loads(done.stdout).items():
        assert planned == pytest.approx(measured, rel=0.02), name


def test_flashinfer_takes_the_heads_that_it_says() -> None:
    assert takes_flash(spec(QWEN3_30B)) and takes_flash(spec(DEEPSEEK_V3))
    assert not takes_flash(spec(dataclasses.replace(QWEN3_30B, head=96)))
