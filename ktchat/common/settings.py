"""The settings file: one small TOML file with a comment above each value, which the person may edit at any time.

A file that is missing, damaged or holds an impossible value never stops the program: what held before holds on, and
`SettingsFile.notice` says so. What the person wrote into it stays; a file that cannot be read is never written over.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.common.whole_files import write_whole
from engine.protocol import Load
from engine.remote.address import is_address
from ktchat.common import toml_file
from ktchat.common.errors import SettingsError, reason_of
from ktchat.common.paths import kv_folder, private_folder
from ktchat.common.precedence import Layers
from ktchat.common.said import Said, changed, tables_of
from ktchat.common.setting_values import (
    FIELDS,
    KEPT_BY_ITSELF,
    MAX_RECENT,
    MODEL,
    OLD_WORDS,
    PER_MODEL,
    PER_PRESET,
    SAMPLED,
    WORDS,
    OverflowPolicy,
    Overrides,
    Settings,
    Values,
    checked,
    model_key,
    without_old_defaults,
)
from ktchat.common.text import one_line

__all__ = [
    "MAX_RECENT", "MODEL", "OverflowPolicy", "Overrides", "Settings", "SettingsFile", "load_command",
]  # fmt: skip

MAX_BYTES = 1 << 20
HEAD = "Settings of ktchat. Edit them here or on its screen (Ctrl+L): it notices, and keeps your comments."
RENEWED = OLD_WORDS | {
    "Settings of ktchat. Edit them here while it does not run, or on its screen.": HEAD
}
"""Comments that older versions wrote and that are not true any more."""

Stamp = tuple[int, int, int] | None
"""By what one tells that a file is another one; None: there is none."""


class SettingsFile:
    """The settings in the file at `path`. Reading never fails; writing raises `SettingsError`."""

    def __init__(self, path: Path, overrides: Overrides | None = None) -> None:
        self.path = path
        self.overrides = overrides or Overrides()
        """What holds before the settings until the program ends; never written."""
        self.notice = ""
        """What was wrong in the file when it was last read; empty: nothing."""
        self.fault = ""
        """Why the file cannot be written over: it is there and says nothing that can be read."""
        self.said = Said()
        self._told = self.said
        self._stamp: Stamp = None
        self._seen: Stamp = None
        self._old_defaults = False
        self.read()
        self._told = self.said

    # What it says.

    @property
    def settings(self) -> Settings:
        """What holds everywhere."""
        return self.said.settings

    def layers(self, path: str = "") -> Layers:
        """What the command line, the settings of the model at `path` and those for everywhere say."""
        own = self.said.models.get(model_key(path), {}) if path else {}
        return Layers(command=self.overrides.values, model=own, everywhere=self.settings.said)

    def load(self, path: str) -> Load:
        """The command that loads a model as the command line and the settings say."""
        return load_command(path, self.layers(path), self.settings)

    # Reading.

    def read(self) -> Settings:
        """Read the file again; what is not possible in it stays as it was."""
        before, first = self.said, self._stamp is None
        self.notice = self.fault = ""
        try:
            with self.path.open("rb") as file:
                self._stamp = _stamp(os.fstat(file.fileno()))
                data = file.read(MAX_BYTES + 1)
            self.said = self._parsed(data, before, first)
        except (FileNotFoundError, NotADirectoryError):
            if not first:
                self._stamp = None
                self.notice = f"{self.path} is gone; what it said holds, and is written again with the next change."
        except OSError as error:
            why, todo = reason_of(error)
            self.notice = f"The settings could not be read: {why}. {todo}".strip()
        except (ValueError, RecursionError) as error:
            self.fault = one_line(str(error) or "it is nested too deeply", 300)
            holds = "the defaults hold" if before == Said() else "what held before holds"
            self.notice = (
                f"{self.path} is damaged, {holds}, and nothing is written into it: {self.fault}."
                " Mend it, or delete it."
            )
        return self.settings

    def _parsed(self, data: bytes, before: Said, first: bool) -> Said:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
        text = data.decode("utf-8-sig")
        values = tomllib.loads(text)
        self._old_defaults = without_old_defaults(values) is not values
        settings, names = checked(values, None if first else before.settings)
        wrong: list[toml_file.Place] = [(name,) for name in names]
        models = tables_of(values, "model", PER_MODEL, wrong)
        presets = tables_of(values, "preset", PER_PRESET, wrong)
        if wrong:
            lines = ((place[-1], toml_file.line_of(text, place)) for place in wrong)
            said = ", ".join(f"{name} (line {line})" if line else name for name, line in lines)
            holds = "the default holds" if first else "what held before holds"
            self.notice = f"In {self.path} {holds} for: {one_line(said, 600)}."
        return Said(settings, models, presets)

    # Edits from outside.

    @property
    def was_edited(self) -> bool:
        """Whether the file is another one than what was read, and has come to rest: two calls must find it the same.
        One look at the file; it may be slow where a disk is."""
        stamp = _stamp_of(self.path)
        at_rest, self._seen = stamp == self._seen, stamp
        return at_rest and (stamp != self._stamp or self._told != self.said)

    def take_edits(self) -> list[str]:
        """Read the file again; in what it differs from what was last known here, in words. What the program keeps by
        itself is left out."""
        if _stamp_of(self.path) != self._stamp:
            self.read()
        names = self._told.differences(self.said)
        self._told = self.said
        return [name for name in names if name not in KEPT_BY_ITSELF]

    # Writing.

    def update(self, **changes: Any) -> Settings:
        """Change some settings and write the file (another ktchat may have changed others).

        Raises `SettingsError` for an impossible value, or when the file cannot be written; the
        change then holds until the program ends.
        """
        self._change({(name,): value for name, value in changes.items()})
        return self.settings

    def update_model(self, path: str, **changes: Any) -> None:
        """Choose for the model at `path`; None: nothing. Raises `SettingsError` like `update`."""
        self._change({("model", model_key(path), name): value for name, value in changes.items()})

    def keep_preset(self, name: str, values: Values | None) -> None:
        """Keep a preset under a name, in the place of one with this name; None: forget it. Raises `SettingsError`."""
        self.change_presets({name: values})

    def change_presets(self, presets: Mapping[str, Values | None]) -> None:
        """Keep and forget several presets at once. Raises `SettingsError`."""
        changes: dict[toml_file.Place, Any] = {}
        for name, values in presets.items():
            before = self.said.presets.get(name, {})
            changes |= {("preset", name, key): None for key in before if key not in (values or {})}
            changes |= {("preset", name, key): value for key, value in (values or {}).items()}
        self._change(changes)

    def _change(self, changes: dict[toml_file.Place, Any]) -> None:
        before = self.said
        self.read()
        try:
            said, told = changed(self.said, changes), changed(self._told, changes)
        except SettingsError:
            self.said = before
            raise
        self.said, self._told = said, told
        what = "The settings cannot be saved"
        if self.fault:
            raise SettingsError(what, f"{self.path}: {self.fault}", "Mend the file, or delete it")
        try:
            private_folder(self.path.parent)
            self._write(changes)
        except ValueError as error:
            raise SettingsError(what, f"{self.path}: {one_line(str(error))}", "Mend it") from error
        except OSError as error:
            why, todo = reason_of(error)
            raise SettingsError(what, f"{self.path}: {why}", todo) from error
        self._stamp = self._seen = _stamp_of(self.path)

    def _write(self, changes: dict[toml_file.Place, Any]) -> None:
        """Put some changes into the file."""
        settings, text = self.settings, ""
        if self.path.exists():
            text = self.path.read_bytes().decode("utf-8-sig")
        else:  # with all that was in it
            tables = (("model", self.said.models), ("preset", self.said.presets))
            changes = changes | {
                (table, name, key): value
                for table, named in tables
                for name, values in named.items()
                for key, value in values.items()
            }
        if self._old_defaults:
            changes = {(name,): MODEL for name in SAMPLED} | changes
        known = [(item.name, getattr(settings, item.name), WORDS[item.name]) for item in FIELDS]
        new = toml_file.edited(text, HEAD, known, changes, RENEWED)
        if new != text:
            write_whole(self.path, new.encode())


def load_command(path: str, layers: Layers, settings: Settings) -> Load:
    """The command that loads a model as the layers say, and keeps on the disk what the settings say."""
    context = layers.held("context")
    here = context.source == "everywhere" and is_address(path)  # a server has a context of its own
    return Load(
        path=path,
        context=None if here else context.value or None,
        device=layers.value("device"),
        kv=layers.value("kv"),
        cache_folder=str(kv_folder()) if settings.disk_cache else "",
        cache_budget=settings.cache_budget,
        lookup=layers.value("lookup"),
    )


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _stamp_of(path: Path) -> Stamp:
    try:
        return _stamp(path.stat())
    except OSError:
        return None
