"""Where ktchat keeps its files.

They lie in the folders that the system sets for data and settings (XDG on Linux), or all in
KTCHAT_HOME when that is set. Where there is none, each raises `FolderError`. Only `private_folder` creates anything.
What others may read of them is taken from others, and said once.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from contextlib import suppress
from pathlib import Path

from ktchat.common.errors import FolderError
from ktchat.common.text import one_line

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
    """Create `path` for this user only (mode 0700) and return it; one that is there is `tighten`ed. Raises `OSError`."""
    if path.is_dir():
        tighten(path)
    else:
        if path.parent != path:
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def tighten(path: Path) -> None:
    """Take from others what they may do with a file or folder of ours, and remember it for `tightened`.

    A folder that is not this user's alone, such as /tmp or the person's home folder, is left as it is.
    """
    with suppress(OSError, RuntimeError):  # it is no worse than before
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077 and found.st_uid == os.geteuid() and not _is_shared(path, mode):
            path.chmod(mode & 0o700)
            _tightened.append(
                f"{one_line(str(path), 300)} could be read by others: now only by you."
            )


def tightened() -> list[str]:
    """What was tightened and not said yet, in words that are safe to draw."""
    return [_tightened.popleft() for _ in range(len(_tightened))]


_tightened: deque[str] = deque(maxlen=20)


def _is_shared(path: Path, mode: int) -> bool:
    user = Path.home().resolve()
    return bool(mode & stat.S_ISVTX) or path.resolve() in (user, *user.parents)


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
