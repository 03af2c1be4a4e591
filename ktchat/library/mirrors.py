"""Mirrors of the hub that may have the person's token: each was asked about once.

A yes is kept in a small file; a no holds until the program ends.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from ktchat.common import paths, toml_file
from ktchat.common.errors import SettingsError, reason_of

if TYPE_CHECKING:
    from engine.hub.client import Hub

MAX_BYTES = 1 << 20
HEAD = "Mirrors of the hub (HF_ENDPOINT) that your token may go to. Delete one to be asked again."


class Mirrors:
    """What the person said. Reading never fails. All of it blocks shortly."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._answers: dict[str, bool] = {}

    @property
    def path(self) -> Path:
        """The file. Raises `FolderError`."""
        return self._path or paths.settings_folder() / "mirrors.toml"

    def says(self, endpoint: str) -> bool | None:
        """Whether the token may go to an endpoint; None: nobody was asked."""
        place = _origin(endpoint)
        return True if place in self._read() else self._answers.get(place)

    def answer(self, endpoint: str, yes: bool) -> None:
        """What the person says about an endpoint. Raises `SettingsError`: it holds, and is not kept."""
        place = _origin(endpoint)
        self._answers[place] = yes
        known = self._read()
        kept = [one for one in known if one != place] + [place] * yes
        if kept != known:
            self._write(kept)

    def _read(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                values = tomllib.loads(file.read(MAX_BYTES).decode("utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        listed = values.get("mirror")
        entries = (
            [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        )
        return [one["address"] for one in entries if isinstance(one.get("address"), str)]

    def _write(self, places: list[str]) -> None:
        try:
            toml_file.write_tables(self.path, HEAD, "mirror", [{"address": one} for one in places])
        except OSError as error:
            why, todo = reason_of(error)
            raise SettingsError("The answer cannot be kept", f"{self.path}: {why}", todo) from error


def open_hub(send_token: bool | None = None) -> Hub:
    """The hub for one command; `send_token` is what its line says about the mirror in HF_ENDPOINT.

    Raises `HubError`, `SettingsError`.
    """
    from engine.hub.client import Hub

    mirrors = Mirrors()

    def says(endpoint: str) -> bool | None:
        if send_token is not None:
            mirrors.answer(endpoint, send_token)
        return mirrors.says(endpoint)

    return Hub(says=says)


def _origin(endpoint: str) -> str:
    from engine.hub.access import origin_of

    scheme, host, port = origin_of(endpoint)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
