"""A small TOML file that a person edits too: what they wrote stays as they wrote it, only values change.

tomlkit changes and takes away values, one section at a time: what is added would else come behind the comments of
the section that follows.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.common.whole_files import write_whole
from ktchat.common.paths import private_folder

Place = tuple[str, ...]
"""Where a value lies: its tables, and its name."""

Known = Iterable[tuple[str, Any, str]]
"""Names, values and words of what a file should have."""


def edited(
    text: str, head: str, known: Known, changes: Mapping[Place, Any], renewed: Mapping[str, str]
) -> str:
    """The text of a file after some changes; None takes a value away, and a table with its last one. What is `known` and
    not there is added with its words above it, a new file begins with `head`. Comments of ours that are `renewed` get
    other words.

    Raises `ValueError` for a text that is no TOML.
    """
    import tomlkit.exceptions

    for old, new in renewed.items():
        text = text.replace(f"# {old}\n", f"# {new}\n")
    there = tomllib.loads(text)
    added = [] if text else [f"# {head}\n"]
    added += [f"# {words}\n{name} = {_text(v)}\n" for name, v, words in known if name not in there]
    try:
        top, *tables = _sections(text)
        top = _with_lines(top, added)
        for table in dict.fromkeys(place[:-1] for place in changes):
            values = {place[-1]: value for place, value in changes.items() if place[:-1] == table}
            at = next((n for n, s in enumerate(tables) if _header(s)[0] == table), None)
            if not table:
                top = _changed(top, values)
            elif at is not None:
                tables[at] = _changed(tables[at], values)
            elif _is_there(there, table):  # in a form of the person's own
                top, *tables = _sections(_changed_anywhere(top + "".join(tables), table, values))
            else:
                _add_table(tables, table, values)
        return _joined([top, *tables])
    except (tomlkit.exceptions.TOMLKitError, RecursionError) as error:
        raise ValueError(str(error)) from error


def write_tables(path: Path, head: str, name: str, tables: Iterable[Mapping[str, Any]]) -> None:
    """Write a list of tables of that name below a first comment. Raises `OSError`."""
    lines = [f"# {head}", ""]
    for table in tables:
        lines += [f"[[{name}]]", *(f"{key} = {_text(table[key])}" for key in table), ""]
    private_folder(path.parent)
    write_whole(path, "\n".join(lines).encode())


def line_of(text: str, place: Place) -> int:
    """The line, from 1 on, on which a value is set; 0: it is not found."""
    before = 0
    for section in _sections(text):
        if _header(section)[0] == place[:-1]:
            for number, line in enumerate(section.splitlines(), before + 1):
                if re.match(rf"\s*[\"']?{re.escape(place[-1])}[\"']?\s*=", line):
                    return number
        before += section.count("\n")
    return 0


# Sections: what is before the first table, then a table each, with the comments right above it.


def _sections(text: str) -> list[str]:
    starts = [0]
    for found in re.finditer(r"^[ \t]*\[", text, re.MULTILINE):
        try:  # a bracket within a text or a list leaves what is before it unfinished
            tomllib.loads(text[starts[-1] : found.start()])
        except tomllib.TOMLDecodeError:
            continue
        starts.append(max(starts[-1], _above_comments(text, found.start())))
    ends = [*starts[1:], len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _above_comments(text: str, end: int) -> int:
    """Where the comment right above a line begins."""
    while end > 0:
        start = text.rfind("\n", 0, end - 1) + 1
        if not text[start:end].lstrip().startswith("#"):
            return end
        end = start
    return end


def _header(section: str) -> tuple[Place, int]:
    """The table of a section, and where the line that names it ends; the top has neither."""
    end = 0
    for line in section.splitlines(True):
        end += len(line)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line.lstrip().startswith("[") or line.lstrip().startswith("[["):
            break
        at: Any = tomllib.loads(line)
        names: list[str] = []
        while at:
            ((name, at),) = at.items()
            names.append(name)
        return tuple(names), end
    return (), 0


def _add_table(tables: list[str], table: Place, values: Mapping[str, Any]) -> None:
    """A new table, behind those of its kind."""
    lines = [f"{name} = {_text(value)}\n" for name, value in values.items() if value is not None]
    if lines:
        kin = [n for n, section in enumerate(tables) if _header(section)[0][:1] == table[:1]]
        header = ".".join(
            name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _text(name) for name in table
        )
        tables.insert(kin[-1] + 1 if kin else len(tables), f"[{header}]\n" + "".join(lines))


def _joined(sections: list[str]) -> str:
    """One below the other, with a line between them."""
    text = ""
    for section in filter(None, sections):
        if text and not text.endswith("\n\n"):
            text = text.rstrip("\n") + "\n\n"
        text += section
    return text


def _with_lines(section: str, added: list[str]) -> str:
    return _joined([section, "\n".join(added)]) if added else section


def _changed(section: str, values: Mapping[str, Any]) -> str:
    """A section with other values."""
    import tomlkit

    table, _ = _header(section)
    document = tomlkit.parse(section)
    at: Any = document
    for name in table:
        at = at[name]
    new = [name for name, value in values.items() if name not in at and value is not None]
    for name, value in values.items():
        if value is None and name in at:
            del at[name]
        elif value is not None and name in at:
            at[name] = tomlkit.value(_text(value))
    if table and not at and not new:  # nothing is left in it but what is said about it
        return "".join(line for line in section.splitlines(True) if line.lstrip().startswith("#"))
    changed = document.as_string()
    if new:
        _, end = _header(changed)
        lines = "".join(f"{name} = {_text(values[name])}\n" for name in new)
        changed = changed[:end] + lines + changed[end:]
    return changed


def _changed_anywhere(text: str, table: Place, values: Mapping[str, Any]) -> str:
    """A text with other values in a table that is no section: `model.x.top_k = 3`, an inline table."""
    import tomlkit

    document = tomlkit.parse(text)
    at: Any = document
    for name in table:
        at = at[name]
    for name, value in values.items():
        if value is not None:
            at[name] = tomlkit.value(_text(value))
        elif name in at:
            del at[name]
    return document.as_string()


def _is_there(values: Mapping[str, Any], table: Place) -> bool:
    at: Any = values
    for name in table:
        if not isinstance(at, Mapping) or name not in at:
            return False
        at = at[name]
    return isinstance(at, Mapping)


def _text(value: Any) -> str:
    """A value as TOML 1.0; a text of many lines as such, where that is easy to read."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # no lone surrogates
    plain = "\\" not in text and '"""' not in text and text.replace("\n", " ").isprintable()
    if "\n" in text and plain and not text.endswith('"'):
        return f'"""\n{text}"""'
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
