"""Tiny models are shared by the tests of a run, but for those whose shape a test has changed."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.gguf.file import GGUFFile
from tests.support.tiny import tiny_model
from tests.support.tiny_shapes import SHAPES


def test_a_changed_shape_is_a_model_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ("qwen3", "qwen3")

    def layers(folder: Path) -> int | None:
        with GGUFFile.open(tiny_model("qwen3", folder)) as file:
            return file.u32("qwen3.block_count")

    usual = SHAPES[key]
    assert layers(tmp_path / "before") == usual.layers
    monkeypatch.setitem(SHAPES, key, replace(usual, layers=usual.layers + 1))
    (tmp_path / "changed").mkdir()
    assert layers(tmp_path / "changed") == usual.layers + 1
    monkeypatch.setitem(SHAPES, key, usual)
    assert layers(tmp_path / "after") == usual.layers
