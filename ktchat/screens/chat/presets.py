"""How models are loaded, as the command palette offers it: the device, the KV cache, the context, prompt lookup, the disk.

A preset is one value of one setting. Choosing it changes the settings; `model_flow` loads the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktchat.common.settings import SettingsFile


@dataclass(frozen=True, slots=True)
class Preset:
    """One value of a setting that says how models are loaded."""

    title: str
    help: str
    change: dict[str, Any]


PRESETS = (
    Preset("Device: auto", "Compute on the GPU where one can be used", {"device": "auto"}),
    Preset("Device: CPU", "Compute on the CPU alone", {"device": "cpu"}),
    Preset("Device: GPU", "Compute on the GPU, or not at all", {"device": "gpu"}),
    Preset("KV cache: f16", "The context is kept in 16 bits", {"kv": "f16"}),
    Preset("KV cache: q8", "In 8 bits: half the room, a little less exact", {"kv": "q8"}),
    Preset("Context: chosen", "ktchat chooses how many tokens", {"context": 0}),
    Preset("Context: auto", "As many tokens as fit", {"context": "auto"}),
    Preset("Lookup: on", "Guess tokens from what was said, where that is faster", {"lookup": True}),
    Preset("Lookup: off", "Tokens come one by one", {"lookup": False}),
    Preset("Disk cache: on", "Sessions opened again answer at once", {"disk_cache": True}),
    Preset("Disk cache: off", "Nothing that is read goes to the disk", {"disk_cache": False}),
)


def offered(file: SettingsFile) -> Iterator[tuple[Preset, str]]:
    """Each choice with its help, which marks the one that holds."""
    now = file.load("")
    values = {"device": now.device, "kv": now.kv, "context": now.context or 0}
    values["lookup"] = now.lookup
    values["disk_cache"] = bool(now.cache_folder)
    for preset in PRESETS:
        holds = preset.change.items() <= values.items()
        yield (
            preset,
            f"{preset.help} (as now)" if holds else f"{preset.help}; the model is loaded again",
        )


def forget_override(file: SettingsFile, preset: Preset) -> None:
    """What the command line said of the same does not hold any more."""
    names = {field.name for field in fields(file.overrides)} & preset.change.keys()
    file.overrides = replace(file.overrides, **dict.fromkeys(names))


def on_cpu(file: SettingsFile) -> None:
    """From now on, until the program ends, load models on the CPU."""
    file.overrides = replace(file.overrides, device="cpu")
