"""Small JSON files of measurements in the user's cache folder.

A file that is missing, damaged or unwritable is as if nothing had ever been measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

MAX_FILE = 1 << 20


def cache_folder() -> Path:
    """Where measurements are kept: cache/ in KTCHAT_HOME if that is set, else the user's cache."""
    home = os.environ.get("KTCHAT_HOME", "")
    if home:
        return Path(home).expanduser().absolute() / "cache"
    import platformdirs

    return platformdirs.user_cache_path("ktchat", appauthor=False)


def read(name: str) -> dict[str, Any]:
    """What is kept under `name`; empty when nothing usable is there."""
    try:
        path = cache_folder() / f"{name}.json"
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_FILE))
    except (OSError, ValueError, RuntimeError, RecursionError):  # RuntimeError: no home folder
        return {}
    return value if isinstance(value, dict) else {}


def write(name: str, value: dict[str, Any]) -> bool:
    """Keep `value` under `name`, in one step; whether that was possible."""
    part = ""
    try:
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) != 0o700:  # an older version made it wider
            folder.chmod(0o700)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", delete=False) as file:
            part = file.name
            json.dump(value, file, indent=1)
        Path(part).replace(folder / f"{name}.json")
    except (OSError, RuntimeError):
        if part:
            with contextlib.suppress(OSError):
                Path(part).unlink()
        return False
    return True
