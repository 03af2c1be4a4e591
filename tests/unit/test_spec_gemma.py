"""Gemma 3 and 4 in numbers: windows, heads and ropes by kind of layer, and what is left to llama.cpp."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from tests.support import tiny
from tests.support.tiny_shapes import SHAPES, Shape

Write = Callable[..., ModelSpec]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    def make(variant: str, **changes: Any) -> ModelSpec:
        """The spec of a tiny Gemma whose shape or metadata are changed."""
        key = variant[:6], variant
        metadata = {name.replace("__", "."): value for name, value in changes.items()}
        sizes = {name: metadata.pop(name) for name in [*metadata] if hasattr(Shape, name)}
        shape = replace(SHAPES[key], **sizes)
        monkeypatch.setitem(SHAPES, key, replace(shape, metadata={**shape.metadata, **metadata}))
        path = tmp_path / f"{variant}-{len(list(tmp_path.iterdir()))}.gguf"
        tiny.write_tiny_model(path, *key, "F32", "F32", 0)
        with GGUFFile.open(path) as file:
            return read_spec(file)

    return make


def test_heads_and_ropes_differ_by_kind_of_layer(write: Write) -> None:
    spec = write("gemma4")
    full, window = spec.attentions
    assert spec.native and spec.windows == (True, False)
    assert (full.head_dim, full.kv_heads, full.window) == (64, 2, 0)
    assert (window.head_dim, window.kv_heads, window.window) == (32, 4, 48)
    assert full.keys_are_values and not window.keys_are_values
    assert (full.softmax_scale, window.softmax_scale) == (1.0, 1.0)
    assert (full.rope.base, window.rope.base) == (1e6, 1e4)
    assert full.rope.frequencies()[8:] == pytest.approx([0.0] * 24, abs=1e-20)
    assert window.rope.frequencies() == pytest.approx([1e4 ** (-i / 16) for i in range(16)])
    assert spec.kv_bytes_per_token == 2 * 2 * 2 * 64
    assert spec.window_row_bytes == 2 * 4 * 2 * 32
    assert (spec.logit_cap, spec.embedding_factor) == (30.0, 16.0)


def test_gemma_3_scales_the_angles_of_layers_that_see_everything_only(write: Write) -> None:
    full, window = write("gemma3").attentions
    assert full.rope.frequencies()[0] == pytest.approx(1 / 8)
    assert window.rope.frequencies()[0] == 1.0
    assert full.softmax_scale == pytest.approx(32**-0.5)


def test_without_a_pattern_every_sixth_layer_sees_everything(write: Write) -> None:
    spec = write("gemma3", layers=7, attention__sliding_window_pattern=6)
    assert spec.windows == (True,) * 5 + (False, True)


def test_without_a_window_gemma_3_sees_everything(write: Write) -> None:
    spec = write("gemma3", attention__sliding_window=0)
    assert spec.native and not spec.windows and not spec.keeps_state


def test_gemma_3_27b_divides_its_scores_by_the_hidden_size(write: Write) -> None:
    assert write("gemma3", layers=62).softmax_scale == 1 / math.sqrt(256 // 8)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("embedding_length_per_layer_input", 256, "embeddings for each layer"),
        ("attention.shared_kv_layers", 1, "share KV caches"),
    ],
)
def test_e2b_and_e4b_are_left_to_llama_cpp(write: Write, key: str, value: int, words: str) -> None:
    spec = write("gemma4-dense", **{key: value})
    assert not spec.native and words in spec.unsupported


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("attention.sliding_window", 0, "sliding_window is 0"),
        ("attention.sliding_window_pattern", [True], "1 values for 2 layers"),
        ("attention.key_length_swa", 33, "differ in length"),
        ("rope.dimension_count_swa", 64, "More features are rotated"),
        ("attention.head_count_kv", [3, 2], "do not divide"),
    ],
)
def test_a_lie_about_windows_is_named(write: Write, key: str, value: Any, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        write("gemma4", **{key: value})


def test_the_divisors_of_frequencies_must_be_there(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf.GGUFWriter.add_tensor

    def without(self: Any, name: str, *rest: Any, **named: Any) -> None:
        if name != "rope_freqs.weight":
            add(self, name, *rest, **named)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", without)
    with pytest.raises(ModelFileError, match="rope_freqs"):
        write("gemma4")
