"""JSON files that describe machines and models: found, read and checked field by field.

Every fault is a `DataFileError` that names the file and the field.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from engine.common.units import byte_size
from engine.errors import KtchatError

MAX_FILE = 4 << 20
MAX_TEXT = 2000
MAX_ITEMS = 1000


class DataFileError(KtchatError):
    """A file that comes with ktchat or that a person wrote is missing or says nonsense."""


def assets_folder() -> Path:
    """Where the files are that come with ktchat. Raises `DataFileError`.

    In a checkout ktchat/assets is a link to assets/; a wheel holds copies.
    """
    folder = Path(__file__).resolve().parents[2] / "ktchat" / "assets"
    if folder.is_dir():
        return folder.resolve()
    raise DataFileError("The folder assets is missing", f"It should be {folder}", "Install again")


def read_json(path: Path) -> Fields:
    """The object in a JSON file."""
    name = ascii(path.name)[1:-1]
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise DataFileError(f"{name} cannot be read", error.strerror or str(error)) from error
    if len(data) > MAX_FILE:
        raise DataFileError(f"{name} cannot be read", f"It is larger than {byte_size(MAX_FILE)}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{name} is not JSON", ascii(str(error))[1:-1]) from error
    return Fields(value, name, "")


class Fields:
    """One JSON object whose fields are asked for by type and bounds."""

    def __init__(self, value: Any, file: str, where: str) -> None:
        self.file, self.where = file, where
        if not isinstance(value, dict):
            raise self.fault("", "is not an object")
        self._value: dict[str, Any] = value

    def fault(self, field: str, why: str) -> DataFileError:
        """An error about a field."""
        path = ".".join(part for part in (self.where, field) if part) or "the whole"
        return DataFileError(f"{self.file} cannot be used", f"{ascii(path)[1:-1]} {why}")

    def has(self, field: str) -> bool:
        """Whether the field is there and not null."""
        return self._value.get(field) is not None

    def names(self) -> list[str]:
        """The fields there are."""
        return list(self._value)

    def text(self, field: str, default: str | None = None) -> str:
        """Printable text on one line; `default` when it is absent (None: it must be there)."""
        value = self._value.get(field, default)
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise self.fault(field, "is not a line of text")
        return value

    def whole(self, field: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within bounds."""
        value = self._value.get(field, default)
        if type(value) is not int or not low <= value <= high:
            raise self.fault(field, f"is not a whole number from {low} to {high}")
        return value

    def real(self, field: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number within bounds."""
        value = self._value.get(field, default)
        if type(value) not in (int, float) or not isinstance(value, int | float):
            raise self.fault(field, "is not a number")
        if not math.isfinite(value) or not low <= value <= high:
            raise self.fault(field, f"is not a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, field: str, default: bool) -> bool:
        """True or false."""
        value = self._value.get(field, default)
        if not isinstance(value, bool):
            raise self.fault(field, "is not true or false")
        return value

    def object(self, field: str) -> Fields:
        """An object; an empty one when it is absent."""
        return Fields(self._value.get(field, {}), self.file, self._path(field))

    def objects(self, field: str) -> list[Fields]:
        """A list of objects; empty when it is absent."""
        value = self._value.get(field, [])
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise self.fault(field, "is not a list")
        return [
            Fields(item, self.file, f"{self._path(field)}[{number}]")
            for number, item in enumerate(value)
        ]

    def _path(self, field: str) -> str:
        return f"{self.where}.{field}" if self.where else field
