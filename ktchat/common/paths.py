"""Where ktchat keeps its files.

They lie in the folders that the system sets for data and settings (XDG on Linux), or all in
KTCHAT_HOME when that is set. Where there is none, each raises `FolderError`. Only `private_folder` creates anything.
"""

from __future__ import annotations

import os
from pathlib import Path

from ktchat.common.errors import FolderError

GUIDE = "ktchat-guide.gguf"


def home() -> Path | None:
    """The folder in KTCHAT_HOME, if set: everything is then kept there."""
    value = os.environ.get("KTCHAT_HOME", "")
    if not value:
        return None
    try:
        return Path(value).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise FolderError(
            "KTCHAT_HOME is no folder",
            "It names a user who does not exist"
            if isinstance(error, RuntimeError)
            else "The folder that it starts from is gone",
            "Set it to a folder's whole path",
        ) from error


def data_folder() -> Path:
    """Sessions and models."""
    return home() or _platform_folder("data")


def settings_folder() -> Path:
    """Settings."""
    return home() or _platform_folder("config")


def database() -> Path:
    """The saved sessions."""
    return data_folder() / "ktchat.db"


def settings_file() -> Path:
    """The settings."""
    return settings_folder() / "settings.toml"


def kv_folder() -> Path:
    """The KV cache of saved sessions: it belongs to the database beside it."""
    return database().parent / "kv"


def models_folder() -> Path:
    """Where models are looked for."""
    return data_folder() / "models"


def guide_model() -> Path | None:
    """The built-in guide model; None if this copy of ktchat is without it."""
    guide = (Path(__file__).parents[1] / "assets" / GUIDE).resolve()
    return guide if guide.is_file() else None


def is_guide(path: str) -> bool:
    """Whether a model file is the built-in guide."""
    guide = guide_model()
    return guide is not None and os.path.realpath(path) == str(guide)


def private_folder(path: Path) -> Path:
    """Create `path` for this user only (mode 0700) and return it. Raises `OSError`."""
    if not path.is_dir():
        if path.parent != path:
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def _platform_folder(kind: str) -> Path:
    import platformdirs

    find = platformdirs.user_data_path if kind == "data" else platformdirs.user_config_path
    try:
        return find("ktchat", appauthor=False)
    except RuntimeError as error:
        raise FolderError(
            "There is no folder to keep anything in",
            "This user has no home folder",
            "Set KTCHAT_HOME to a folder you can write to",
        ) from error
