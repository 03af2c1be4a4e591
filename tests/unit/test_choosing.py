"""The rows of the settings and what changes them, without a screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktchat.common import presets
from ktchat.common.precedence import Layers
from ktchat.common.setting_values import FIELDS, KEPT_BY_ITSELF
from ktchat.common.settings import Overrides, SettingsFile
from ktchat.screens.settings.rows import ROWS, Row
from ktchat.session.choosing import Chooser

BY_KEY = ("session_list", "thinking_folded")
"""Ctrl+B and Ctrl+T are their switches."""
BY_NAME = {row.name: row for row in ROWS}


def test_every_setting_has_a_row() -> None:
    shown = {row.name for row in ROWS} - {"preset"}
    assert shown == {f.name for f in FIELDS} - {*KEPT_BY_ITSELF, *BY_KEY}
    assert all(row.help for row in ROWS)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.kind == "number"], ids=lambda row: row.name
)
def test_what_is_shown_of_a_number_can_be_typed(row: Row) -> None:
    low, high = row.limits
    for value in (low, high, *(value for value, _ in row.choices)):
        assert row.parsed(row.shown(value)) == value
    for text in ("", "much", "nan", str(high * 10), "-2", "1e999"):
        with pytest.raises(ValueError, match="a number from"):
            row.parsed(text)


@pytest.mark.parametrize(
    ("name", "value", "less", "more"),
    [
        ("temperature", 0.0, 0.0, 0.1), ("temperature", 0.65, 0.6, 0.7), ("temperature", 0.7, 0.6, 0.8),
        ("top_k", 40, 30, 50), ("top_k", 0, 0, 10), ("top_p", 1.0, 0.95, 1.0), ("min_p", 0.05, 0.04, 0.06),
        ("context", "auto", 0, 1024), ("context", 5000, 4096, 5120), ("kv", "f16", "q8", "q8"),
        ("lookup", True, False, False), ("device", "auto", "cpu", "gpu"), ("seed", 5, None, None),
    ],
)  # fmt: skip
def test_steps(name: str, value: object, less: object, more: object) -> None:
    row = BY_NAME[name]
    assert (row.stepped(value, -1), row.stepped(value, 1)) == (less, more)


def test_a_chooser_without_a_session_or_a_model(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "s.toml", Overrides(kv="q8"))
    chooser = Chooser(file, None, "")
    assert chooser.scopes("temperature") == ("everywhere",)
    chooser.choose("temperature", 0.1, "everywhere")
    assert not chooser.reset("theme") and chooser.reset("temperature")
    assert file.settings.said == {}
    chooser.choose("kv", "f16", "everywhere")
    assert file.overrides == Overrides() and chooser.held("kv").value == "f16"
    model = Chooser(file, None, "/m/A.gguf")
    assert model.scopes("kv") == ("model", "everywhere") and model.scopes("theme") == (
        "everywhere",
    )
    model.choose("kv", "q8", "model")
    assert (model.held("kv").source, chooser.held("kv").source) == ("model", "built-in")
    model.choose("kv", "q8", "everywhere")
    assert file.said.models == {} and model.held("kv").source == "everywhere"


def test_presets_of_ours_are_possible_and_known_again(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "s.toml")
    chooser = Chooser(file, None, "/m/A.gguf")
    balanced = presets.matching(presets.presets({}), chooser.layers)
    assert balanced is not None and balanced.name == "balanced", "what is built in"
    for preset in presets.SHIPPED:
        chooser.apply(preset.values, "model")
        held = presets.matching(presets.presets({}), chooser.layers)
        assert held is preset and file.said.models["A.gguf"] == preset.values
    chooser.apply({"top_k": 3, "system": "S"}, "everywhere")
    assert file.said.models == {} and file.settings.said == {"top_k": 3, "system": "S"}
    assert presets.matching(presets.presets({}), chooser.layers) is None
    assert presets.held(chooser.layers)["system"] == "S"
    chooser.apply({}, "model")
    assert file.settings.top_k == 3, "what holds everywhere is left"
    assert Layers(everywhere=file.settings.said).value("top_k") == 3
