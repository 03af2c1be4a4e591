"""The rows of the settings: what each is called, what it can be, and how its value is written and read.

A setting that the screen is to show needs a row here, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.common.units import count
from engine.protocol import SAMPLING_LIMITS
from ktchat.common.setting_values import HELP, possible
from ktchat.common.text import one_line
from ktchat.session.choosing import Scope

Kind = Literal["number", "choice", "text", "theme", "preset"]

WRITES, TOLD, LOADED, KEPT, SCREEN = (
    "how it writes", "what it is told", "how a model is loaded", "what is kept", "the screen",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One setting."""

    name: str
    title: str
    group: str
    kind: Kind
    choices: tuple[tuple[Any, str], ...] = ()
    """Values that have a name of their own, and their names; of a choice: all of them."""
    step: float = 0.0
    """By how much Left and Right change a number."""
    limits: tuple[float, float] = (0, 1 << 30)
    default: Scope = "everywhere"
    """For what a change is kept, unless the person says otherwise."""
    reload: bool = False
    """It holds when the model is loaded again."""
    about: str = field(default="", repr=False)
    """Its help, where that is another one than the file's."""

    @property
    def help(self) -> str:
        """A sentence or two."""
        return self.about or HELP[self.name]

    def shown(self, value: Any) -> str:
        """A value as it is written on the screen; safe to draw."""
        named = next(
            (words for v, words in self.choices if v == value and type(v) is type(value)), None
        )
        if named is not None:
            return named
        if self.kind == "text":
            return one_line(str(value), 200) or "none"
        if isinstance(value, float):
            return f"{value:g}"
        return (
            count(value) if isinstance(value, int) and value >= 1000 else one_line(str(value), 60)
        )

    def typed(self, text: str) -> str:
        """A value as it is typed."""
        return text.replace(",", "").replace(" ", "").replace("\u202f", "").replace("\u2009", "")

    def parsed(self, text: str) -> Any:
        """What was typed, as the setting takes it. Raises `ValueError` with what would be possible."""
        words = text.strip()
        for value, name in self.choices:
            if words and words in (name, str(value)):
                return value
        try:
            number = float(self.typed(words))
            if type(self.limits[0]) is int and number == int(number):
                return possible(self.name, int(number))
            return possible(self.name, number)
        except (ValueError, OverflowError) as error:
            raise ValueError(self.range) from error

    @property
    def range(self) -> str:
        """What can be typed."""
        low, high = (f"{n:g}" if n < 1e6 else count(int(n)) for n in self.limits)
        named = [name for value, name in self.choices if not self._is_within(value)]
        return f"a number from {low} to {high}" + "".join(f", or: {name}" for name in named)

    def _is_within(self, value: Any) -> bool:
        return False if isinstance(value, str) else value > self.limits[0]

    def stepped(self, value: Any, direction: int) -> Any:
        """The value a step further; None: there is none."""
        if self.kind == "choice":
            values = [v for v, _ in self.choices]
            at = values.index(value) + direction if value in values else 0
            return values[at % len(values)] if values else None
        if self.kind != "number" or not self.step:
            return None
        number = float(value) if isinstance(value, int | float) else 0.0
        low, high = self.limits
        place = round(number / self.step, 6)  # in steps; what lies between two goes to the next one
        steps = math.floor(place) + 1 if direction > 0 else math.ceil(place) - 1
        new = min(high, max(low, steps * self.step))
        return round(new) if type(low) is int else round(new, 6)


def _sampled(name: str, title: str, step: float, *choices: tuple[Any, str]) -> Row:
    low, high = SAMPLING_LIMITS[name]
    return Row(name, title, WRITES, "number", choices, step, (low, high), "session")


ON_OFF = ((True, "on"), (False, "off"))
ROWS = (
    Row("preset", "preset", WRITES, "preset", default="session", about="Sampling under a name, some with a system message."
        " Enter shows them, keeps the values that hold as one, renames and deletes."),
    _sampled("temperature", "temperature", 0.1),
    _sampled("top_k", "top-k", 10, (0, "all")),
    _sampled("top_p", "top-p", 0.05),
    _sampled("min_p", "min-p", 0.01),
    _sampled("repeat_penalty", "repeat penalty", 0.05),
    Row("seed", "seed", WRITES, "number", ((-1, "random"),), 0, (0, 0xFFFFFFFF), "session",
        about="Same seed, same reply; random: another one each time."),
    Row("max_tokens", "longest reply", WRITES, "number", ((0, "as the context allows"),), 256, default="session",
        about="Tokens at which a reply is cut; F9 lets it go on."),
    Row("system", "system message", TOLD, "text", default="session",
        about="What the model is told before everything else. A change has the conversation read anew, once."),
    Row("think", "thinking", TOLD, "choice", default="session",
        about="Whether and how much the model thinks, where its template offers a choice (also by its key)."),
    Row("context", "context", LOADED, "number", ((0, "chosen"), ("auto", "the most that fit")), 1024, reload=True,
        about="Tokens of the conversation that the model sees. Chosen: by ktchat, as memory allows."),
    Row("device", "device", LOADED, "choice", (("auto", "auto"), ("gpu", "GPU"), ("cpu", "CPU")), reload=True,
        about="What computes. Auto: the GPU where one can be used."),
    Row("kv", "KV cache", LOADED, "choice", (("f16", "16 bits"), ("q8", "8 bits")), reload=True,
        about="How the context is kept. 8 bits: half the room, a little less exact."),
    Row("lookup", "prompt lookup", LOADED, "choice", ON_OFF, reload=True),
    Row("overflow", "when it is full", KEPT, "choice", (("ask", "ask"), ("drop", "drop turns"), ("summarise", "summarise"),
        ("stop", "stop")), about="When a message does not fit into the context: ask, let the oldest turns go unread, have"
        " them summarised, or do not send it."),
    Row("disk_cache", "on the disk", KEPT, "choice", ON_OFF, reload=True),
    Row("disk_cache_gb", "disk budget", KEPT, "number", ((0.0, "chosen"),), 1, (0.0, 1e6), reload=True,
        about="GB that sessions may take on the disk, to answer at once when opened again. Chosen: 10, or a tenth of"
        " the free disk where that is less."),
    Row("model_titles", "titles", KEPT, "choice", ((False, "first words"), (True, "by the model")),
        about="What a session is called: after its first message, or as the model says in the background."),
    Row("theme", "theme", SCREEN, "theme", about="Colours of the screen. Enter shows them, each as the cursor comes to it."),
)  # fmt: skip


def with_choices(row: Row, choices: Sequence[tuple[Any, str]]) -> Row:
    """The same with choices that are known only now."""
    return replace(row, choices=tuple(choices))
