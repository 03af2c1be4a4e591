"""A small TOML file of values, written with a comment above each."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ktchat.common.paths import private_folder


def write(path: Path, head: str, values: Iterable[tuple[str, Any, str]]) -> None:
    """Write names, values and comments below a first comment. Raises `OSError`."""
    lines = [f"# {head}", ""]
    for name, value, words in values:
        lines += [f"# {words}", f"{name} = {_toml_value(value)}", ""]
    _replace(path, "\n".join(lines))


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        clean = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _replace(path: Path, text: str) -> None:
    """Replace the file at once: a reader sees the old or the new one, never half of it."""
    private_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=".settings-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
