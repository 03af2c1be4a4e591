"""Which value of a setting holds, and where it comes from. This is the one place where the order is written:

command line, this session, this model, the model's own file, everywhere (the settings file), built in.

The nearer goes before the wider. Not every source knows every setting: a session chooses no device, and a
model's file speaks of sampling alone. What a template does about thinking by itself is built in: it always does something.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.protocol import PartialSampling, Sampling
from ktchat.common.setting_values import BUILT_IN, SAMPLED, Values

Source = Literal["command", "session", "model", "file", "everywhere", "built-in"]

ORDER: tuple[Source, ...] = ("command", "session", "model", "file", "everywhere", "built-in")
SOURCES: dict[Source, str] = {
    "command": "command line",
    "session": "this session",
    "model": "this model",
    "file": "the model's file",
    "everywhere": "everywhere",
    "built-in": "built in",
}
"""What each is called on the screen."""

NAMES = (*SAMPLED, "seed")
"""The values of sampling."""


@dataclass(frozen=True, slots=True)
class Held:
    """A value, and who says it."""

    value: Any
    source: Source


@dataclass(frozen=True, slots=True)
class Layers:
    """What each source says, by the setting's name; what is not there is not said."""

    command: Values = field(default_factory=dict)
    session: Values = field(default_factory=dict)
    model: Values = field(default_factory=dict)
    file: Values = field(default_factory=dict)
    everywhere: Values = field(default_factory=dict)

    def with_file(self, sampling: PartialSampling) -> Layers:
        """The same for a model whose file says this of sampling."""
        values = {name: getattr(sampling, name) for name in NAMES}
        return dataclasses.replace(
            self, file={name: value for name, value in values.items() if value is not None}
        )

    def said(self, name: str) -> Iterator[Held]:
        """Everything that is said of a setting, what holds first; the built-in value last."""
        for source in ORDER[:-1]:
            values: Values = getattr(self, source)
            if name in values:
                yield Held(values[name], source)
        yield Held(BUILT_IN[name], "built-in")

    def held(self, name: str, possible: Callable[[Any], bool] = lambda value: True) -> Held:
        """What holds: the first that is `possible`, else what is built in."""
        said = list(self.said(name))
        return next((held for held in said if possible(held.value)), said[-1])

    def value(self, name: str) -> Any:
        """The value that holds."""
        return self.held(name).value

    @property
    def sampling(self) -> Sampling:
        """How the next token is chosen."""
        values = {name: self.value(name) for name in SAMPLED}
        seed = self.value("seed")
        return Sampling(**values, seed=None if seed < 0 else seed)

    @property
    def token_limit(self) -> int | None:
        """Longest reply in tokens; None: no limit but the context."""
        return self.value("max_tokens") or None

    @property
    def words(self) -> str:
        """Sampling in one line: `temperature 0.6 (the model's file) · top-k 40 (built in) · …`."""
        held = ((name, self.held(name)) for name in NAMES)
        return " · ".join(
            f"{name.replace('_', '-')} {value.value:g} ({SOURCES[value.source]})"
            for name, value in held
            if name != "seed" or value.value >= 0
        )
