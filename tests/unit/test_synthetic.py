"""Synthetic weights have the sizes and types of the real models', and both engines can read them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import KtchatError, RequestError
from engine.evaluation import synthetic
from engine.evaluation.llama_cpp_reference import LlamaCppReference
from engine.gguf.file import GGUFFile
from engine.gguf.writer import TensorPlan, write_gguf
from engine.spec.reader import read_spec
from engine.spec.recipes import RECIPES
from engine.spec.shapes import SHAPES, Shape
from kernels.ops import Bytes
from kernels.quants import BY_NAME, IK_TYPES

SMALL = Shape(
    "qwen3moe",
    layers=16,
    some_layers=2,
    hidden=256,
    heads=8,
    kv_heads=2,
    head=64,
    experts=16,
    top_k=2,
    expert_ff=256,
    qk_norm=True,
)


@pytest.fixture
def small_shape(monkeypatch: pytest.MonkeyPatch) -> Shape:
    monkeypatch.setitem(SHAPES, "small", SMALL)
    return SMALL


def types_of(name: str, layers: int, recipe: str = "Q4_K_M") -> dict[str, str]:
    return {t.name: t.type.name for t in synthetic.plan(SHAPES[name], layers, recipe)}


def test_q4_k_m_gives_half_of_the_down_experts_more_bits() -> None:
    types = types_of("qwen3-30b-a3b", 8)
    down = [types[f"blk.{i}.ffn_down_exps.weight"] for i in range(8)]
    assert sorted(down) == ["Q4_K"] * 4 + ["Q6_K"] * 4
    assert down[0] == down[7] == types["blk.0.attn_v.weight"] == types["output.weight"] == "Q6_K"
    assert types["blk.0.ffn_gate_exps.weight"] == types["token_embd.weight"] == "Q4_K"
    assert types["blk.0.ffn_gate_inp.weight"] == types["blk.0.attn_norm.weight"] == "F32"


def test_rows_that_no_block_of_256_fits_into_get_smaller_blocks() -> None:
    types = types_of("deepseek-v2-lite", 8)
    assert {types[f"blk.{i}.ffn_down_exps.weight"] for i in range(1, 8)} == {"Q5_0", "Q8_0"}
    assert types["blk.1.ffn_gate_exps.weight"] == "Q4_K"


def test_models_with_eight_experts_keep_attention_fine() -> None:
    types = types_of("mixtral-8x7b", 4)
    assert types["blk.0.attn_k.weight"] == types["blk.2.attn_v.weight"] == "Q8_0"
    assert types["blk.0.attn_output.weight"] == "Q5_K"


@pytest.mark.parametrize(
    ("recipe", "embedding", "first_down", "down", "value", "query", "output"),
    [
        ("IQ1_S", "Q2_K", "Q2_K", "IQ1_S", "Q4_K", "IQ1_S", "Q5_K"),
        ("IQ2_XXS", "Q2_K", "Q2_K", "IQ2_XXS", "Q4_K", "IQ2_XXS", "Q5_K"),
        ("IQ2_M", "IQ3_S", "IQ3_S", "IQ2_S", "Q4_K", "IQ2_S", "Q5_K"),
        ("IQ3_XXS", "IQ3_S", "IQ3_XXS", "IQ3_XXS", "Q4_K", "IQ2_S", "Q5_K"),
        ("IQ3_S", "IQ3_S", "IQ3_S", "IQ3_S", "Q4_K", "IQ3_S", "Q6_K"),
        ("TQ1_0", "Q4_K", "TQ1_0", "TQ1_0", "TQ1_0", "TQ1_0", "Q6_K"),
    ],
)
def test_mixes_of_few_bits_keep_what_matters_finer(
    recipe: str, embedding: str, first_down: str, down: str, value: str, query: str, output: str
) -> None:
    types = types_of("qwen3-30b-a3b", 8, recipe)
    assert types["token_embd.weight"] == embedding
    assert types["blk.0.ffn_down_exps.weight"] == first_down
    assert types["blk.1.ffn_down_exps.weight"] == down
    assert (types["blk.3.attn_v.weight"], types["blk.3.attn_q.weight"]) == (value, query)
    assert types["output.weight"] == output
    eight = types_of("mixtral-8x7b", 4, recipe)
    assert eight["blk.0.attn_k.weight"] == ("Q4_K" if recipe[:3] in ("IQ1", "IQ2") else "Q8_0")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen3-30b-a3b", 30.5),
        ("qwen3-4b", 4.0),
        ("mixtral-8x7b", 46.7),
        ("deepseek-v2-lite", 15.7),
        ("deepseek-v3", 671.0),
        ("gpt-oss-20b", 20.9),
        ("gpt-oss-120b", 116.8),
    ],
)
def test_all_layers_have_the_parameters_of_the_real_model(name: str, billions: float) -> None:
    shape = SHAPES[name]
    tensors = synthetic.plan(shape, shape.layers, "Q8_0")
    inside = sum(t.rows * t.shape[-1] for t in tensors if t.name.startswith("blk."))
    real_vocabulary = {"mixtral-8x7b": 32000, "deepseek-v3": 129280, "deepseek-v2-lite": 102400}
    real_vocabulary |= dict.fromkeys(("gpt-oss-20b", "gpt-oss-120b"), 201088)
    outside = real_vocabulary.get(name, 151936) * shape.hidden * (1 if shape.tied else 2)
    assert (inside + outside) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - IK_TYPES))
def test_both_engines_read_the_file(recipe: str, small_shape: Shape, tmp_path: Path) -> None:
    path = synthetic.shape_file("small", 2, tmp_path, recipe=recipe)
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        planned = {t.name: (t.type, t.shape) for t in synthetic.plan(SMALL, 2, recipe)}
        assert {n: (t.type, t.shape) for n, t in file.tensors.items()} == planned
    assert spec.native
    assert spec.quantisation == recipe
    assert spec.moe is not None
    assert (spec.layers, spec.moe.experts, spec.moe.top_k) == (2, 16, 2)
    with LlamaCppReference(path, 64) as reference:
        logits = reference.logits(list(range(40)))
    assert np.isfinite(logits).all()
    assert 0.5 < logits.std() < 5


def test_a_second_call_takes_the_file_that_is_there(small_shape: Shape, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = synthetic.shape_file("small", 1, tmp_path, report=lambda *done: calls.append(done))
    assert calls[-1][0] == calls[-1][1] > 0
    before, count = path.read_bytes(), len(calls)
    assert synthetic.shape_file("small", 1, tmp_path, report=lambda *d: calls.append(d)) == path
    assert (path.read_bytes(), len(calls)) == (before, count)


def test_stale_files_are_removed_and_others_kept(small_shape: Shape, tmp_path: Path) -> None:
    old_format = tmp_path / "small-1-q4_k_m-f0.gguf"
    unused = tmp_path / f"small-3-q4_k_m-f{synthetic.FORMAT}.gguf"
    left = tmp_path / "small-4.gguf.99.part"
    recent = tmp_path / f"small-5-q4_k_m-f{synthetic.FORMAT}.gguf"
    foreign = tmp_path / "notes.txt"
    for path in (old_format, unused, left, recent, foreign):
        path.write_bytes(b"x")
    long_ago = time.time() - 30 * 86400
    for path in (unused, left, foreign):
        os.utime(path, (long_ago, long_ago))
    made = synthetic.shape_file("small", 1, tmp_path)
    assert set(tmp_path.iterdir()) == {made, recent, foreign}


def test_the_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert synthetic.cache_folder() == Path("/somewhere/ktchat/shapes")


def test_too_small_a_disk_is_refused_before_anything_is_written(
    small_shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "SPARE", 1 << 60)
    with pytest.raises(KtchatError, match=r"do not fit on the disk.*GB free.*fewer layers"):
        synthetic.shape_file("small", 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "layers", "recipe", "words"),
    [
        ("qwen9", None, "Q4_K_M", "There is no shape qwen9. Use one of qwen3-30b-a3b"),
        ("qwen3-30b-a3b", 49, "Q4_K_M", "Use a number from 1 to 48"),
        ("qwen3-30b-a3b", 0, "Q4_K_M", "cannot have 0 layers"),
        ("qwen3-30b-a3b", 1, "Q9", "There is no recipe Q9. Use one of Q4_K_M"),
    ],
)
def test_wrong_requests_say_what_is_possible(
    name: str, layers: int | None, recipe: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=words):
        synthetic.shape_file(name, layers, tmp_path, recipe=recipe)


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(fault: type[BaseException], tmp_path: Path) -> None:
    def data(tensor: TensorPlan) -> Iterator[Bytes]:
        yield np.zeros(64, np.uint8)
        raise fault

    with pytest.raises(fault):
        write_gguf(tmp_path / "a.gguf", {}, [TensorPlan("t", BY_NAME["F32"], (32,))], data)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_one_clear_error(small_shape: Shape, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KtchatError, match=r"cannot be written.*Not a directory.*XDG_CACHE_HOME"):
        synthetic.shape_file("small", 1, tmp_path / "file" / "shapes")
