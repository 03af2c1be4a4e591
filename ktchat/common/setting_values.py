"""The person's settings: their values, their limits, and the words that explain them.

`ktchat.common.settings` reads and writes them, `ktchat.common.precedence` says which one holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, cast, get_args

from engine.errors import RequestError
from engine.protocol import Auto, Device, KvKind, PartialSampling, Sampling, Think
from engine.remote.address import is_address
from ktchat.common.errors import SettingsError
from ktchat.common.text import one_line

OverflowPolicy = Literal["ask", "drop", "summarise", "stop"]
MODEL = "model"
"""In place of a value that a model has by itself: nothing of the person's."""
MAX_RECENT = 20
Values = Mapping[str, Any]
"""Settings by name, some of them."""


def _setting(default: Any, words: str, choices: tuple[str, ...] = ()) -> Any:
    """`choices` are the texts that the setting can be; of another type than text, beside its values."""
    metadata = {"words": words, "choices": choices}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _sampled(name: str, words: str) -> Any:
    """A sampling value: a model's file goes before it, and it may be left to ktchat."""
    own = getattr(Sampling(), name)
    help_ = words
    old = f'{words} "{MODEL}": as its file says, else {own:g}.'
    words = f'{words} For models whose file says nothing of it; "{MODEL}": ktchat\'s own, {own:g}.'
    metadata = {"words": words, "choices": (MODEL,), "own": own, "old": old, "help": help_}
    return field(default=MODEL, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. The words beside each are its help and the comment in the file."""

    theme: str = _setting("", "Colours of the screen; empty: the program's own. See Ctrl+P, theme.")
    session_list: bool = _setting(True, "Whether the session list is shown (Ctrl+B).")
    thinking_folded: bool = _setting(True, "Whether the model's thinking is folded (Ctrl+T).")
    system: str = _setting("", "The system message with which a new session begins.")
    temperature: float | str = _sampled(
        "temperature", "0: always the likeliest token; higher: more varied."
    )
    top_k: int | str = _sampled("top_k", "Choose among so many of the likeliest tokens; 0: all.")
    top_p: float | str = _sampled(
        "top_p", "Choose among the likeliest tokens of this total probability."
    )
    min_p: float | str = _sampled(
        "min_p", "Leave out tokens less likely than this share of the likeliest."
    )
    repeat_penalty: float | str = _sampled(
        "repeat_penalty", "Above 1: tokens that were just used become less likely."
    )
    seed: int = _setting(-1, "Same seed, same reply; -1: another one each time.")
    max_tokens: int = _setting(0, "Longest reply in tokens; 0: as long as the context allows.")
    think: str = _setting(
        MODEL,
        f'Whether and how much models think that offer a choice; "{MODEL}": as each does by itself.',
        (MODEL, *get_args(Think)),
    )
    context: int | str = _setting(
        0,
        'Tokens of context to load a model with; 0: ktchat chooses, "auto": the most that fit.',
        get_args(Auto),
    )
    overflow: str = _setting(
        "ask",
        'When a message does not fit into the context: "ask", "drop" the oldest turns, "summarise" them, or "stop".',
        get_args(OverflowPolicy),
    )
    device: str = _setting(
        "auto",
        'What computes: "gpu", "cpu", or "auto": the GPU where one can be used.',
        get_args(Device),
    )
    kv: str = _setting(
        "f16",
        'How the context is kept: "f16", or "q8": half the room, a little less exact.',
        get_args(KvKind),
    )
    disk_cache: bool = _setting(
        True, "Keep on the disk what was read, so that a session opened again answers at once."
    )
    disk_cache_gb: float = _setting(
        0.0, "GB that it may take there; 0: 10, or a tenth of the free disk where that is less."
    )
    lookup: bool = _setting(
        True, "Guess tokens from what was said before, where that is faster; replies are the same."
    )
    model_titles: bool = _setting(
        False, "Let the model write a session's title after its first reply, in the background."
    )
    last_model: str = _setting(
        "", "The model that was used last: a file, or an address on a server."
    )
    last_session: str = _setting("", "The session that was open last.")
    recent_models: tuple[str, ...] = _setting((), "Model files that were opened, the last first.")
    recent_files: tuple[str, ...] = _setting((), "Files that were attached, the last first.")
    setup_done: bool = _setting(False, "Whether the first start's questions were answered.")

    @property
    def said(self) -> dict[str, Any]:
        """What differs from the built-in values: what the person set."""
        named = ((f.name, getattr(self, f.name)) for f in FIELDS)
        return {name: value for name, value in named if value != getattr(_DEFAULTS, name)}

    @property
    def cache_budget(self) -> int | None:
        """Bytes that the KV cache may take on the disk; None: the engine chooses."""
        return round(1e9 * self.disk_cache_gb) or None

    def with_recent(self, path: str) -> dict[str, Any]:
        """The change that notes `path` as opened: `file.update(**settings.with_recent(path))`."""
        if is_address(path):  # those have a list of their own
            return {}
        others = tuple(p for p in self.recent_models if p != path)
        return {"recent_models": (path, *others)[:MAX_RECENT]}

    def with_model(self, path: str) -> dict[str, Any]:
        """The changes that note `path` as the model that the next start opens."""
        return {"last_model": path, **self.with_recent(path)}


FIELDS = dataclasses.fields(Settings)
BY_NAME = {item.name: item for item in FIELDS}
WORDS = {item.name: str(item.metadata["words"]) for item in FIELDS}
"""What stands above each in the file."""
HELP = {item.name: str(item.metadata.get("help", WORDS[item.name])) for item in FIELDS}
"""The help of each on the screen."""
OLD_WORDS = {item.metadata["old"]: WORDS[item.name] for item in FIELDS if "old" in item.metadata}
"""What older versions said in its place."""
SAMPLED = tuple(item.name for item in FIELDS if "own" in item.metadata)
BUILT_IN: dict[str, Any] = {
    item.name: item.metadata.get("own", getattr(Settings(), item.name)) for item in FIELDS
} | {"think": None}
"""What holds where nobody says anything."""
KEPT_BY_ITSELF = ("last_model", "last_session", "recent_models", "recent_files", "setup_done")
"""What the program notes without being asked."""

PER_SESSION = (*SAMPLED, "seed", "max_tokens")
"""What can be chosen for a session; its system message and its thinking lie beside these."""
PER_MODEL = (*PER_SESSION, "system", "think", "context", "device", "kv", "lookup")
"""What can be chosen for a model."""
PER_PRESET = (*SAMPLED, "system")
"""What a preset holds."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says; None: nothing. It holds until the program ends and is never written."""

    context: int | Auto | None = None
    device: Device | None = None
    kv: KvKind | None = None
    lookup: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    system: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """What is said, by name."""
        named = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in named if value is not None}

    def without(self, names: Iterable[str]) -> Overrides:
        """The same, silent on some names."""
        own = {f.name for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **dict.fromkeys(own.intersection(names)))


def model_key(path: str) -> str:
    """The name by which the settings know a model: its file's, so that they follow it to another folder."""
    return PurePath(path).name


def checked(values: Values, before: Settings | None = None) -> tuple[Settings, list[str]]:
    """Settings from foreign values, and the names of those that are not possible: they stay as `before`."""
    settings, wrong = Settings(), []
    values = without_old_defaults(values)
    for item in FIELDS:
        if item.name not in values:
            continue
        try:
            value = possible(item.name, values[item.name])
        except ValueError:
            wrong.append(item.name)
            value = getattr(before or settings, item.name)
        settings = dataclasses.replace(settings, **{item.name: value})
    return settings, wrong


def chosen(values: object, names: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """What was chosen for a session, a model or in a preset, from foreign values: only `names`, and the names of those
    that are not possible."""
    found, wrong = dict[str, Any](), list[str]()
    if not isinstance(values, Mapping):
        return {}, []
    for name in names:
        if name not in values or values[name] == MODEL:
            continue
        try:
            found[name] = possible(name, values[name])
        except ValueError:
            wrong.append(name)
    return found, wrong


def possible(name: str, value: object) -> Any:
    """`value` as the setting `name` takes it. Raises `ValueError` for one that it cannot be."""
    item = BY_NAME[name]
    default = item.metadata.get("own", getattr(_DEFAULTS, name))
    typed = _typed(value, default, item.metadata["choices"])
    try:
        _check_limits(name, typed)
    except RequestError as error:
        raise ValueError(error.todo) from error
    return typed


def refused(name: str, value: object) -> SettingsError:
    """Why the setting `name` cannot be `value`."""
    try:
        possible(name, value)
        todo = ""
    except ValueError as error:
        todo = str(error)
    item = BY_NAME[name].metadata
    if not todo and item["choices"]:
        todo = "Use " + " or ".join((*(["a number"] if "own" in item else []), *item["choices"]))
    return SettingsError(f"{name} {one_line(str(value), 40)} is not possible", "", todo)


def without_old_defaults(values: Values) -> Values:
    """Older versions wrote their defaults into the file: where all are there, nobody had set one."""
    if all(values.get(name) == BUILT_IN[name] for name in SAMPLED):
        return {name: value for name, value in values.items() if name not in SAMPLED}
    return values


def sampling_of(values: Values) -> PartialSampling:
    """The sampling values among settings. Raises `RequestError` for impossible ones."""
    seed = values.get("seed", -1)
    named = {name: values[name] for name in SAMPLED if values.get(name, MODEL) != MODEL}
    return PartialSampling(**named, seed=None if seed is None or seed < 0 else cast(int, seed))


_DEFAULTS = Settings()
_LIMITS = {"max_tokens": (0, 1 << 30), "context": (0, 1 << 30), "disk_cache_gb": (0, 1_000_000)}


def _check_limits(name: str, value: Any) -> None:
    if name in (*SAMPLED, "seed"):
        if name == "seed" and value < -1:
            raise ValueError
        sampling_of({name: value})  # refuses impossible values
    elif name in _LIMITS and not isinstance(value, str):
        least, most = _LIMITS[name]
        if not least <= value <= most:
            raise ValueError(f"Use a value from {least} to {most}")
    elif name in ("last_model", "last_session") and "\0" in value:  # no path and no name has one
        raise ValueError


def _typed(value: Any, default: Any, choices: tuple[str, ...]) -> Any:
    """`value` as the type of `default`, or one of `choices`. Raises `ValueError`."""
    if choices and isinstance(value, str):
        if value not in choices:
            raise ValueError
        return value
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(item for item in value if isinstance(item, str) and "\0" not in item)[
            :MAX_RECENT
        ]
    if isinstance(default, float) and type(value) in (int, float):
        return float(value)
    if type(value) is not type(default):
        raise ValueError
    return value
