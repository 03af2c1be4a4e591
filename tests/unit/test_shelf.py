"""Plans of the model screens: as the settings have models loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktchat.common.paths import settings_file
from ktchat.common.settings import SettingsFile
from ktchat.library import shelf
from tests.support.plans import machine, spec


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path))


def test_plans_have_the_context_and_the_cache_of_the_settings() -> None:
    chosen = shelf.plan_of(spec(), machine(64, 24))
    assert chosen.placement is not None and chosen.placement.kv == "f16"
    SettingsFile(settings_file()).update(context=2048, kv="q8")
    plan = shelf.plan_of(spec(), machine(64, 24))
    assert plan.placement is not None and plan.placement.kv == "q8"
    assert plan.context == 2048 != chosen.context
    (one, *_) = shelf.catalogue(machine(64, 24))
    assert one.plan.context == 2048
    alone = shelf.plan_of(spec(), machine(64))  # the CPU keeps its cache in float16
    assert alone.verdict == "CPU" and alone.context == 2048
    SettingsFile(settings_file()).update(context="auto")
    assert shelf.plan_of(spec(), machine(64, 24)).context > chosen.context


def test_gpus_are_left_alone_as_the_settings_or_the_command_line_say() -> None:
    assert shelf.machine(measure=False).use_gpus
    assert not shelf.machine(measure=False, device="cpu").use_gpus
    SettingsFile(settings_file()).update(device="cpu")
    assert not shelf.machine(measure=False).use_gpus
    assert shelf.machine(measure=False, device="gpu").use_gpus
