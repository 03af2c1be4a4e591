"""Keys of servers: in the system's keyring where there is one, else in a file for this user only.

A key belongs to one origin. It is in no settings, no session, no log and no error.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.common.whole_files import write_whole
from ktchat.common import paths
from ktchat.common.errors import SettingsError, reason_of

MAX_BYTES = 1 << 20
_SERVICE = "ktchat"


class Keys:
    """All of them block shortly, a keyring that asks for its password longer."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or paths.settings_folder() / "keys.json"

    def find(self, origin: str) -> str:
        """The key of an origin; empty: there is none."""
        ring = _keyring()
        if ring is not None:
            with suppress(Exception):  # of whatever backend there is
                if found := ring.get_password(_SERVICE, origin):
                    return str(found)
        return self._read().get(origin, "")

    def keep(self, origin: str, key: str) -> str:
        """Keep a key in place of an older one; where it is now, in words. Raises `SettingsError`."""
        self.forget(origin)
        ring = _keyring()
        if ring is not None:
            with suppress(Exception):
                ring.set_password(_SERVICE, origin, key)
                return "the system's keyring"
        self._write({**self._read(), origin: key})
        return f"{self.path.name}, for you only"

    def forget(self, origin: str) -> None:
        """Remove a key wherever it is. Raises `SettingsError`."""
        ring = _keyring()
        if ring is not None:
            with suppress(Exception):  # it has none
                ring.delete_password(_SERVICE, origin)
        kept = self._read()
        if kept.pop(origin, None) is not None:
            self._write(kept)

    def _read(self) -> dict[str, str]:
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    os.fchmod(file.fileno(), 0o600)
                data = json.loads(file.read(MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        entries = data.items() if isinstance(data, dict) else ()
        return {origin: key for origin, key in entries if isinstance(key, str)}

    def _write(self, keys: dict[str, str]) -> None:
        try:
            if not keys:
                self.path.unlink(missing_ok=True)
                return
            paths.private_folder(self.path.parent)
            write_whole(self.path, json.dumps(keys, indent=1).encode())  # mode 0600
        except OSError as error:
            why, todo = reason_of(error)
            raise SettingsError("The key cannot be kept", why, todo) from None


def _keyring() -> Any:
    """The system's keyring; None: there is none, or all of this program's files are kept in one folder."""
    if paths.home() is not None:
        return None
    try:
        import keyring

        return keyring if keyring.get_keyring().priority > 0 else None
    except Exception:  # a backend that cannot even say so
        return None
