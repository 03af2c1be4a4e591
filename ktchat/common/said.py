"""What a settings file says: the settings for everywhere, and tables of what was chosen for models and of presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ktchat.common.setting_values import (
    FIELDS,
    PER_MODEL,
    Settings,
    Values,
    checked,
    chosen,
    refused,
)
from ktchat.common.text import one_line
from ktchat.common.toml_file import Place

MAX_TABLES = 500
"""Models, or presets, of which a file speaks."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the file says."""

    settings: Settings = field(default_factory=Settings)
    models: Mapping[str, Values] = field(default_factory=dict)
    """What was chosen for models, by their file's name."""
    presets: Mapping[str, Values] = field(default_factory=dict)

    def differences(self, other: Said) -> list[str]:
        """In what it differs from another one, in words."""
        names = [
            f.name
            for f in FIELDS
            if getattr(self.settings, f.name) != getattr(other.settings, f.name)
        ]
        for model in sorted({*self.models, *other.models}):
            mine, theirs = self.models.get(model, {}), other.models.get(model, {})
            others = (n for n in PER_MODEL if mine.get(n) != theirs.get(n))
            names += [f"{name} of {one_line(model, 60)}" for name in others]
        presets = sorted({*self.presets, *other.presets})
        kept = (p for p in presets if self.presets.get(p) != other.presets.get(p))
        return names + [f"the preset {one_line(name, 60)}" for name in kept]


def changed(said: Said, changes: Mapping[Place, Any]) -> Said:
    """What is said after some changes. Raises `SettingsError` for an impossible value."""
    own = {place[0]: value for place, value in changes.items() if len(place) == 1}
    values = {item.name: getattr(said.settings, item.name) for item in FIELDS}
    settings, wrong = checked(values | own)
    tables = {"model": dict(said.models), "preset": dict(said.presets)}
    for place, value in changes.items():
        if len(place) == 3:
            table, name, key = place
            mine = {k: v for k, v in tables[table].get(name, {}).items() if k != key}
            found, bad = chosen({} if value is None else {key: value}, PER_MODEL)
            wrong += bad
            tables[table] |= {name: mine | found}
            if not tables[table][name]:
                del tables[table][name]
    if wrong:
        raise refused(wrong[0], {place[-1]: value for place, value in changes.items()}[wrong[0]])
    return dataclasses.replace(
        said, settings=settings, models=tables["model"], presets=tables["preset"]
    )


def tables_of(
    values: Values, table: str, names: tuple[str, ...], wrong: list[Place]
) -> dict[str, Values]:
    """The tables `[table.name]`, checked; what is not possible in them is added to `wrong`."""
    named, found = values.get(table), dict[str, Values]()
    for name, own in list(named.items())[:MAX_TABLES] if isinstance(named, dict) else ():
        possible, impossible = chosen(own, names)
        wrong += [(table, name, key) for key in impossible]
        if possible:
            found[name] = possible
    return found
