"""Models on this machine: their plans follow the settings, and only our own can be deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import KtchatError
from ktchat.common import paths
from ktchat.common.paths import settings_file
from ktchat.common.settings import SettingsFile
from ktchat.library import local_models, plans
from tests.support.plans import machine, spec
from tests.support.tiny import tiny_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "guide_model", lambda: None)
    (tmp_path / "models").mkdir()
    return tmp_path


def test_plans_have_the_context_and_the_cache_of_the_settings() -> None:
    chosen = plans.plan_of(spec(), machine(64, 24))
    assert chosen.placement is not None and chosen.placement.kv == "f16"
    SettingsFile(settings_file()).update(context=2048, kv="q8")
    plan = plans.plan_of(spec(), machine(64, 24))
    assert plan.placement is not None and plan.placement.kv == "q8"
    assert plan.context == 2048 != chosen.context
    alone = plans.plan_of(spec(), machine(64))
    assert alone.verdict == "CPU" and alone.context == 2048
    SettingsFile(settings_file()).update(context="auto")
    assert plans.plan_of(spec(), machine(64, 24)).context > chosen.context


def test_gpus_are_left_alone_as_the_settings_or_the_command_line_say() -> None:
    assert plans.machine(measure=False).use_gpus
    assert not plans.machine(measure=False, device="cpu").use_gpus
    SettingsFile(settings_file()).update(device="cpu")
    assert not plans.machine(measure=False).use_gpus
    assert plans.machine(measure=False, device="gpu").use_gpus


def test_own_models_come_with_plans_and_a_broken_file_without(home: Path) -> None:
    tiny_model("qwen3moe", home / "models")
    (home / "models" / "broken.gguf").write_bytes(b"no model")
    found = {Path(one.entry.path).name: one for one in local_models.own_models((), machine(8))}
    broken = found.pop("broken.gguf")
    assert broken.plan is None and broken.entry.error
    (whole,) = found.values()
    assert whole.plan is not None and whole.deletable
    assert not local_models.model_at(Path(whole.entry.path), machine(8)).deletable


def test_only_what_lies_in_the_models_folder_is_deleted(home: Path) -> None:
    outside = home / "outside.gguf"
    outside.write_bytes(b"mine")
    with pytest.raises(KtchatError):
        local_models.delete(outside)
    assert outside.exists()
    inside = tiny_model("qwen3moe", home / "models")
    assert local_models.delete(inside) > 0 and not inside.exists()
