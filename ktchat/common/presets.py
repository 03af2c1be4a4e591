"""Presets: sampling, and perhaps a system message, under a name. Some come with the program, the others are the person's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ktchat.common.precedence import Layers
from ktchat.common.setting_values import PER_PRESET, SAMPLED, Values
from ktchat.common.text import one_line

MAX_NAME = 40
"""Characters of a preset's name."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What is chosen under a name."""

    name: str
    values: Values
    help: str
    ours: bool = False
    """It comes with the program."""

    @property
    def words(self) -> str:
        """Its values in one line: `temperature 0.2 · top-k 40 · … · a system message`."""
        said = [f"{n.replace('_', '-')} {self.values[n]:g}" for n in SAMPLED if n in self.values]
        return " · ".join([*said, *["a system message"] * bool(self.values.get("system"))])


def _ours(name: str, help_: str, *values: float) -> Preset:
    return Preset(name, dict(zip(SAMPLED, values, strict=True)), help_, ours=True)


SHIPPED = (
    _ours(
        "precise",
        "Code, sums, facts from a text: nearly always the likeliest words. It makes no model know more; one that"
        " thinks may go round in circles with it.",
        *(0.2, 40, 0.9, 0.05, 1.0),
    ),
    _ours(
        "balanced",
        "ktchat's own values, for most things. Where a model's file has its own, those are the better guess.",
        *(0.7, 40, 0.95, 0.05, 1.0),
    ),
    _ours(
        "creative",
        "Stories and ideas: more varied, and wrong more often.",
        *(1.1, 0, 1.0, 0.05, 1.0),
    ),
)

NONE = Preset(
    "the model's own",
    {},
    "Takes your sampling away here: what the model's file says holds, else what holds everywhere.",
)
"""No preset."""


def presets(own: Mapping[str, Values]) -> list[Preset]:
    """All of them: ours, then the person's by name."""
    theirs = (
        Preset(name, values, one_line(str(values.get("system", "")), 200))
        for name, values in sorted(own.items(), key=lambda item: item[0].casefold())
        if name not in {preset.name for preset in SHIPPED}
    )
    return [*SHIPPED, *theirs]


def matching(all_: list[Preset], layers: Layers) -> Preset | None:
    """The preset whose values are those that hold; the person's own before ours."""
    for preset in reversed(all_):
        if preset.values and all(layers.value(n) == v for n, v in preset.values.items()):
            return preset
    return None


def held(layers: Layers) -> dict[str, Any]:
    """What would be kept as a preset now: sampling as it holds, and the system message where there is one."""
    values = {name: layers.value(name) for name in PER_PRESET}
    return values if str(values["system"]).strip() else {n: values[n] for n in SAMPLED}
