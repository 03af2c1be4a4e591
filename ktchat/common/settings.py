"""The person's settings: one small TOML file, written with a comment above each value.

A file that is missing, damaged or holds an impossible value never stops the program: the default
holds, and `SettingsFile.notice` says so.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from engine.errors import RequestError
from engine.protocol import Auto, Device, KvKind, Load, PartialSampling, Sampling
from engine.remote.address import is_address
from ktchat.common import toml_file
from ktchat.common.errors import SettingsError, reason_of
from ktchat.common.paths import kv_folder
from ktchat.common.sampling import SamplingSources
from ktchat.common.text import one_line

MAX_BYTES = 1 << 20
MAX_RECENT = 20
HEAD = "Settings of ktchat. Edit them here while it does not run, or on its screen."
OverflowPolicy = Literal["ask", "drop", "summarise", "stop"]
MODEL = "model"
"""In place of a sampling value: what the model's file says, else ktchat's own."""


def _setting(default: Any, words: str, choices: tuple[str, ...] = ()) -> Any:
    """`choices` are the texts that the setting can be; of another type than text, beside its values."""
    metadata = {"words": words, "choices": choices}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _sampled(name: str, words: str) -> Any:
    """A sampling value that is the model's unless the person sets it."""
    own = getattr(Sampling(), name)
    words = f'{words} "{MODEL}": as its file says, else {own:g}.'
    metadata = {"words": words, "choices": (MODEL,), "own": own}
    return field(default=MODEL, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Overrides:
    """How to load models, as the command line says; None: as the settings do."""

    context: int | Auto | None = None
    device: Device | None = None
    kv: KvKind | None = None
    lookup: bool | None = None


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
    setup_done: bool = _setting(False, "Whether the first start's questions were answered.")

    @property
    def sampling(self) -> PartialSampling:
        """What the person set of how the next token is chosen."""
        values = {name: getattr(self, name) for name in SAMPLED}
        chosen = {name: None if value == MODEL else value for name, value in values.items()}
        return PartialSampling(**chosen, seed=None if self.seed < 0 else self.seed)

    @property
    def cache_budget(self) -> int | None:
        """Bytes that the KV cache may take on the disk; None: the engine chooses."""
        return round(1e9 * self.disk_cache_gb) or None

    @property
    def token_limit(self) -> int | None:
        """Longest reply in tokens; None: no limit but the context."""
        return self.max_tokens or None

    @property
    def context_limit(self) -> int | Auto | None:
        """Tokens of context to load a model with, or "auto"; None: the engine chooses."""
        return cast(int | Auto, self.context) or None

    def load(self, path: str, overrides: Overrides) -> Load:
        """The command that loads a model as the overrides say; where they are silent, as these settings do."""
        return Load(
            path=path,
            context=overrides.context or (None if is_address(path) else self.context_limit),
            device=overrides.device or cast(Device, self.device),
            kv=overrides.kv or cast(KvKind, self.kv),
            cache_folder=str(kv_folder()) if self.disk_cache else "",
            cache_budget=self.cache_budget,
            lookup=self.lookup if overrides.lookup is None else overrides.lookup,
        )

    def with_recent(self, path: str) -> dict[str, Any]:
        """The change that notes `path` as opened: `file.update(**settings.with_recent(path))`."""
        if is_address(path):  # those have a list of their own
            return {}
        others = tuple(p for p in self.recent_models if p != path)
        return {"recent_models": (path, *others)[:MAX_RECENT]}

    def with_model(self, path: str) -> dict[str, Any]:
        """The changes that note `path` as the model that the next start opens."""
        return {"last_model": path, **self.with_recent(path)}


SAMPLED = tuple(f.name for f in dataclasses.fields(Settings) if "own" in f.metadata)


class SettingsFile:
    """The settings in the file at `path`. Reading never fails; writing raises `SettingsError`."""

    def __init__(self, path: Path, overrides: Overrides | None = None) -> None:
        self.path = path
        self.overrides = overrides or Overrides()
        """What holds before the settings until the program ends; never written."""
        self.notice = ""
        """What was wrong in the file when it was last read; empty: nothing."""
        self.settings = self.read()

    def read(self) -> Settings:
        """Read the file again."""
        self.notice = ""
        values: dict[str, Any] = {}
        try:
            with self.path.open("rb") as file:
                values = tomllib.loads(file.read(MAX_BYTES).decode("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self.notice = f"The settings could not be read: {reason_of(error)[0]}."
        except (ValueError, RecursionError) as error:
            self.notice = f"{self.path} is damaged, the defaults hold: {one_line(str(error))}."
        self.settings, wrong = _checked(values)
        if wrong and not self.notice:
            self.notice = f"In {self.path} the default holds for: {one_line(', '.join(wrong))}."
        return self.settings

    @property
    def sampling(self) -> SamplingSources:
        """What the person set of sampling, to be completed by what a model's file says."""
        return SamplingSources(settings=self.settings.sampling)

    def load(self, path: str) -> Load:
        """The command that loads a model as the command line and the settings say."""
        return self.settings.load(path, self.overrides)

    def update(self, **changes: Any) -> Settings:
        """Change some settings and write the file (another ktchat may have changed others).

        Raises `SettingsError` for an impossible value, or when the file cannot be written; the
        change then holds until the program ends.
        """
        now = self.settings
        self.settings, wrong = _checked({**_values(self.read()), **changes})
        if wrong:
            self.settings = now
            raise SettingsError(f"The setting {wrong[0]} cannot have that value", "", "")
        try:
            toml_file.write(self.path, HEAD, _commented(self.settings))
        except OSError as error:
            self.settings, _ = _checked({**_values(now), **changes})
            why, todo = reason_of(error)
            raise SettingsError(
                "The settings cannot be saved", f"{self.path}: {why}", todo
            ) from error
        return self.settings


def _values(settings: Settings) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}


def _commented(settings: Settings) -> list[tuple[str, Any, str]]:
    """Name and value of each setting, with its words."""
    items = dataclasses.fields(Settings)
    return [(item.name, getattr(settings, item.name), item.metadata["words"]) for item in items]


def _checked(values: dict[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from foreign values, and the names of those that were not possible."""
    settings, wrong = Settings(), []
    values = _without_old_defaults(values)
    for item in dataclasses.fields(Settings):
        if item.name not in values:
            continue
        try:
            default = getattr(settings, item.name)
            default = item.metadata.get("own", default)
            value = _typed(values[item.name], default, item.metadata["choices"])
            changed = dataclasses.replace(settings, **{item.name: value})
            _check_limits(changed)
            settings = changed
        except (TypeError, ValueError, RequestError):
            wrong.append(item.name)
    return settings, wrong


def _without_old_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Older versions wrote their defaults into the file: where all are there, nobody had set one."""
    own = {f.name: f.metadata["own"] for f in dataclasses.fields(Settings) if "own" in f.metadata}
    if all(values.get(name) == value for name, value in own.items()):
        return {name: value for name, value in values.items() if name not in own}
    return values


def _check_limits(settings: Settings) -> None:
    assert settings.sampling is not None  # refuses impossible values
    if "\0" in settings.last_model + settings.last_session:  # no path and no name has one
        raise ValueError
    if not 0 <= settings.max_tokens <= 1 << 30:
        raise ValueError
    if isinstance(settings.context, int) and not 0 <= settings.context <= 1 << 30:
        raise ValueError
    if settings.seed < -1 or not 0 <= settings.disk_cache_gb <= 1e6:
        raise ValueError


def _typed(value: Any, default: Any, choices: tuple[str, ...]) -> Any:
    """`value` as the type of `default`, or one of `choices`. Raises `TypeError`."""
    if choices and isinstance(value, str):
        if value not in choices:
            raise TypeError
        return value
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(item for item in value if isinstance(item, str) and "\0" not in item)[
            :MAX_RECENT
        ]
    if isinstance(default, float) and type(value) in (int, float):
        return float(value)
    if type(value) is not type(default):
        raise TypeError
    return value
