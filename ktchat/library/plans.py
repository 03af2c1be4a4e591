"""This machine, and memory plans of models on it, as the settings have models loaded.

Every function blocks, from tens of milliseconds to some seconds, and imports what it needs: call it
in a thread.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ktchat.common.paths import models_folder, settings_file
from ktchat.common.settings import SettingsFile

if TYPE_CHECKING:
    from engine.machine.types import Hardware
    from engine.plan.memory_plan import MemoryPlan
    from engine.protocol import Device, Load
    from engine.spec.spec import ModelSpec


def machine(measure: bool, fresh: bool = False, device: Device | None = None) -> Hardware:
    """This machine; with `measure` what was never measured is (up to 2.5 s), with `fresh` all of it.

    Where `device`, or without it the setting of that name, says cpu, plans leave its GPUs alone.
    """
    from engine.machine.probe import probe

    device = device or load_settings().device
    found = probe(models_folder(), measure=measure, fresh=fresh)
    return replace(found, use_gpus=device != "cpu")


def plan_of_file(path: Path, hardware: Hardware) -> MemoryPlan:
    """The plan for a file. Raises `KtchatError`."""
    from engine.gguf.file import GGUFFile
    from engine.spec.reader import read_spec

    with GGUFFile.open(path) as file:
        return plan_of(read_spec(file), hardware)


def plan_of(spec: ModelSpec, hardware: Hardware) -> MemoryPlan:
    """The plan for a model, with the context and the KV cache of the settings."""
    from engine.plan.planner import make_plan

    load = load_settings()
    return make_plan(spec, hardware, load.context, kv=load.kv)


def load_settings() -> Load:
    """How the settings have models loaded."""
    return SettingsFile(settings_file()).load("")
