"""Versions to choose from: ranked and planned as the settings have models loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktchat.common.paths import settings_file
from ktchat.common.settings import SettingsFile
from ktchat.library import versions
from tests.support.plans import GIB, machine


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path))


def test_the_catalogue_is_ranked_with_the_context_of_the_settings() -> None:
    SettingsFile(settings_file()).update(context=2048, kv="q8")
    (one, *_) = versions.catalogue(machine(64, 24))
    assert one.plan.context == 2048


def test_what_a_size_alone_says_of_the_fit() -> None:
    assert versions.fits(20 * GIB, machine(64)) and not versions.fits(64 * GIB, machine(64))
    assert versions.rough_fit(20 * GIB, machine(64)) == "CPU"
    assert versions.rough_fit(64 * GIB, machine(64)) == "short by ~1.1 GB of RAM"


def test_a_name_of_the_catalogue_becomes_one_of_the_hub() -> None:
    (one, *_) = versions.catalogue(machine(64))
    quant = one.model.quants[0].name
    assert versions.hub_name(f"{one.model.id}:{quant}", machine(64)) == one.model.ref(
        one.model.quants[0]
    )
    assert versions.hub_name("owner/repo:Q4_K_M", machine(64)) == "owner/repo:Q4_K_M"
