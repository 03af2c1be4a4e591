"""How models are loaded, as the palette offers it: the device, the KV cache, the context.

Knows the choices, their words, and the settings that they change. Knows nothing of loading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktchat.common.settings import SettingsFile


@dataclass(frozen=True, slots=True)
class Way:
    """One value of a setting that says how models are loaded."""

    title: str
    help: str
    change: dict[str, Any]


WAYS = (
    Way("Device: auto", "Compute on the GPU where one can be used", {"device": "auto"}),
    Way("Device: CPU", "Compute on the CPU alone", {"device": "cpu"}),
    Way("Device: GPU", "Compute on the GPU, or not at all", {"device": "gpu"}),
    Way("KV cache: f16", "The GPU keeps the context in 16 bits", {"kv": "f16"}),
    Way("KV cache: q8", "In 8 bits: half the room, a little less exact", {"kv": "q8"}),
    Way("Context: chosen", "ktchat chooses how many tokens", {"context": 0}),
    Way("Context: auto", "As many tokens as fit", {"context": "auto"}),
)


def offered(file: SettingsFile) -> Iterator[tuple[Way, str]]:
    """Each choice with its help, which marks the one that holds."""
    now = file.load("")
    values = {"device": now.device, "kv": now.kv, "context": now.context or 0}
    for way in WAYS:
        holds = way.change.items() <= values.items()
        yield way, f"{way.help} (as now)" if holds else f"{way.help}; the model is loaded again"


def forget_wish(file: SettingsFile, way: Way) -> None:
    """What the command line said of the same does not hold any more."""
    file.wishes = replace(file.wishes, **dict.fromkeys(way.change))


def on_cpu(file: SettingsFile) -> None:
    """From now on, until the program ends, load models on the CPU."""
    file.wishes = replace(file.wishes, device="cpu", kv="f16")
