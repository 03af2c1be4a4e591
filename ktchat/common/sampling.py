"""Which sampling values hold, and where each comes from.

The command line goes before the person's settings, those before the model's file, that before ktchat's own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from engine.protocol import PartialSampling, Sampling

NAMES = tuple(item.name for item in fields(PartialSampling))
_NOTHING = PartialSampling()


@dataclass(frozen=True, slots=True)
class SamplingSources:
    """What the person said, to be completed by what a model's file says."""

    command: PartialSampling = _NOTHING
    settings: PartialSampling = _NOTHING

    def resolved(self, model: PartialSampling = _NOTHING) -> Sampling:
        """The values that hold for a model."""
        values: dict[str, Any] = {name: value for name, value, _ in self.origins(model)}
        return Sampling(**values)

    def origins(
        self, model: PartialSampling = _NOTHING
    ) -> list[tuple[str, float | int | None, str]]:
        """Each value's name, the value, and where it comes from."""
        sources = (
            (self.command, "command line"),
            (self.settings, "your settings"),
            (model, "the model"),
            (Sampling(), "ktchat"),
        )
        return [
            next(
                (name, value, words)
                for source, words in sources
                if (value := getattr(source, name)) is not None or words == "ktchat"
            )
            for name in NAMES
        ]

    def words(self, model: PartialSampling = _NOTHING) -> str:
        """In one line: `temperature 0.6 (the model) · top-k 40 (ktchat) · …`."""
        shown = [
            f"{name.replace('_', '-')} {value:g} ({source})"
            for name, value, source in self.origins(model)
            if value is not None
        ]
        return " · ".join(shown)
