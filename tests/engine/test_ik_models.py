"""Models in the types of ik_llama.cpp: read, planned, computed, and kept from what cannot open them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine.client import Engine
from engine.errors import RequestError, UnsupportedModelError
from engine.evaluation import synthetic
from engine.evaluation.bench import bench
from engine.evaluation.bench_result import Load as BenchLoad
from engine.evaluation.verify import verify
from engine.gguf.file import GGUFFile
from engine.protocol import Failed, Finished, Load, Loaded, Message, Sampling
from engine.spec.reader import read_spec
from engine.spec.shapes import SHAPES, Shape
from engine.text.tokenizer import Part, Tokenizer
from kernels.cpu import CpuOps
from kernels.quants import BY_NAME, IK_TYPES
from kernels.reference import ReferenceOps
from ktchat.library.models import describe
from tests.support.engines import collect, text_of
from tests.support.fidelity import logits, nmse

# Every expert is used: which ones are would depend on roundings.
SMALL = Shape(
    "qwen3moe", layers=2, some_layers=2, hidden=256, heads=4, kv_heads=2, head=64, experts=2, top_k=2,
    expert_ff=256, qk_norm=True,
)  # fmt: skip
NAMES = sorted(IK_TYPES)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Shape:
    monkeypatch.setitem(SHAPES, "small", SMALL)
    return SMALL


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_one_type_is_read_and_computed(name: str, small: Shape, tmp_path: Path) -> None:
    path = synthetic.shape_file("small", 2, tmp_path, recipe=name)
    kind = BY_NAME[name]
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        experts = file.tensors["blk.0.ffn_up_exps.weight"]
    assert spec.native and spec.ik_types and spec.quantisation == name
    assert experts.type is kind
    assert experts.nbytes == 2 * 256 * (kind.prefix + 256 // kind.block * kind.bytes)
    assert spec.groups["experts"].resident == spec.groups["experts"].bytes == 6 * experts.nbytes
    assert spec.groups["experts"].device >= spec.groups["experts"].bytes
    tokens = [*range(40, 60)]
    wanted = logits(path, ReferenceOps(), [20], tokens)
    got = logits(path, CpuOps(2), [12, *[1] * 8], tokens)
    assert 0.2 < wanted.std() < 20
    assert nmse(got, wanted) < 5e-4
    listed = describe(str(path))
    assert (listed.quantisation, listed.runtime, listed.error) == (name, "native", "")


async def test_a_model_talks_on_our_runtime_only(small: Shape, tmp_path: Path) -> None:
    path = str(synthetic.shape_file("small", 2, tmp_path, recipe="IQ4_KS"))
    engine = Engine()
    try:
        loading = await collect(engine.load(Load(path, context=200, threads=1)))
        reply = await collect(
            engine.generate([Message("user", "hello")], Sampling(temperature=0.0), 8)
        )
        refused = await collect(engine.load(Load(path, runtime="llama.cpp")))
    finally:
        await engine.close()
    assert isinstance(loading[-1], Loaded) and loading[-1].runtime == "native"
    assert isinstance(reply[-1], Finished) and text_of(reply)
    assert isinstance(refused[-1], Failed)
    assert "quantised for ik_llama.cpp" in str(refused[-1].error)


def test_what_compares_with_llama_cpp_says_why_it_cannot(small: Shape, tmp_path: Path) -> None:
    path = synthetic.shape_file("small", 2, tmp_path, recipe="IQ2_KL")
    with pytest.raises(UnsupportedModelError, match="compare, cannot open it"):
        verify(path, threads=1)
    with pytest.raises(RequestError, match="Measure it without --vs"):
        bench(path, BenchLoad(prompt=8, generate=4), threads=1, versus=True)


def test_an_architecture_that_only_llama_cpp_runs_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(SHAPES, "small", dataclasses.replace(SMALL, architecture="internlm2"))
    path = synthetic.shape_file("small", 2, tmp_path, recipe="IQ4_K")
    with (
        GGUFFile.open(path) as file,
        pytest.raises(UnsupportedModelError, match="is quantised for ik_llama"),
    ):
        read_spec(file)


def test_a_vocabulary_is_the_same_without_the_tensors(small: Shape, tmp_path: Path) -> None:
    texts = ["hello, World", "<|im_start|>x", "ümlaut \n\n 12"]
    tokens = []
    for recipe in ("Q4_K_M", "IQ4_K"):
        tokenizer = Tokenizer.open(synthetic.shape_file("small", 2, tmp_path, recipe=recipe))
        tokens.append([tokenizer.encode([Part(text, special=True)]) for text in texts])
        tokenizer.close()
    assert tokens[0] == tokens[1]
