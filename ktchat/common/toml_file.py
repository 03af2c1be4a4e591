"""A small TOML file of values, written with a comment above each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.common.whole_files import write_whole
from ktchat.common.paths import private_folder


def write(path: Path, head: str, values: Iterable[tuple[str, Any, str]]) -> None:
    """Write names, values and comments below a first comment. Raises `OSError`."""
    lines = [f"# {head}", ""]
    for name, value, words in values:
        lines += [f"# {words}", f"{name} = {_toml_value(value)}", ""]
    private_folder(path.parent)
    write_whole(path, "\n".join(lines).encode())


def write_tables(path: Path, head: str, name: str, tables: Iterable[Mapping[str, Any]]) -> None:
    """Write a list of tables of that name below a first comment. Raises `OSError`."""
    lines = [f"# {head}", ""]
    for table in tables:
        lines += [f"[[{name}]]", *(f"{key} = {_toml_value(table[key])}" for key in table), ""]
    private_folder(path.parent)
    write_whole(path, "\n".join(lines).encode())


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        clean = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
