"""How models are loaded, as the command palette offers it: the device, the KV cache, the context, prompt lookup, the disk.

Each is one value of one setting. Choosing it changes the settings; `model_flow` loads the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktchat.common.settings import SettingsFile


@dataclass(frozen=True, slots=True)
class LoadingChoice:
    """One value of a setting that says how models are loaded."""

    title: str
    help: str
    change: dict[str, Any]


CHOICES = (
    LoadingChoice("Device: auto", "Compute on the GPU where one can be used", {"device": "auto"}),
    LoadingChoice("Device: CPU", "Compute on the CPU alone", {"device": "cpu"}),
    LoadingChoice("Device: GPU", "Compute on the GPU, or not at all", {"device": "gpu"}),
    LoadingChoice("KV cache: f16", "The context is kept in 16 bits", {"kv": "f16"}),
    LoadingChoice("KV cache: q8", "In 8 bits: half the room, a little less exact", {"kv": "q8"}),
    LoadingChoice("Context: chosen", "ktchat chooses how many tokens", {"context": 0}),
    LoadingChoice("Context: auto", "As many tokens as fit", {"context": "auto"}),
    LoadingChoice(
        "Lookup: on", "Guess tokens from what was said, where that is faster", {"lookup": True}
    ),
    LoadingChoice("Lookup: off", "Tokens come one by one", {"lookup": False}),
    LoadingChoice("Disk cache: on", "Sessions opened again answer at once", {"disk_cache": True}),
    LoadingChoice(
        "Disk cache: off", "Nothing that is read goes to the disk", {"disk_cache": False}
    ),
)


def offered(file: SettingsFile, model: str) -> Iterator[tuple[LoadingChoice, str]]:
    """Each choice with its help, which marks the one that holds for the model at a path."""
    now = file.load(model)
    values = {"device": now.device, "kv": now.kv, "context": now.context or 0}
    values["lookup"] = now.lookup
    values["disk_cache"] = bool(now.cache_folder)
    for choice in CHOICES:
        holds = choice.change.items() <= values.items()
        yield (
            choice,
            f"{choice.help} (as now)" if holds else f"{choice.help}; the model is loaded again",
        )


def on_cpu(file: SettingsFile) -> None:
    """From now on, until the program ends, load models on the CPU."""
    file.overrides = replace(file.overrides, device="cpu")
