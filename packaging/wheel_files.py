"""Reads and rewrites wheel files: names, hashes, what they depend on and what their libraries need.

Knows nothing of pip, nor of what belongs into a wheelhouse.
"""

from __future__ import annotations

import base64
import email
import hashlib
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_SYMBOL = re.compile(rb"\0(GLIBC|GLIBCXX)_(\d+(?:\.\d+)+)(?=\0)")


@dataclass(frozen=True)
class Wheel:
    """One file of the wheelhouse."""

    file: str
    name: str
    version: str
    bytes: int
    sha256: str


def describe(path: Path) -> Wheel:
    name, version = path.name.split("-")[:2]
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Wheel(path.name, name.replace("_", "-").lower(), version, len(content), digest)


def requirements(wheels: Sequence[Wheel]) -> str:
    """What pip installs with `-r`, pinned by version and hash."""
    return "".join(f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels)


def asked(wheel: Path, python: str) -> set[str]:
    """The packages that a wheel depends on, on Linux with that Python and without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        headers = email.message_from_bytes(archive.read(file))
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    listed = map(Requirement, headers.get_all("Requires-Dist", []))
    wanted = (a for a in listed if a.marker is None or a.marker.evaluate(environment))
    return {canonicalize_name(requirement.name) for requirement in wanted}


def needs(wheels: Iterable[Path]) -> dict[str, str]:
    """The newest symbol versions of glibc and libstdc++ that libraries compiled here ask for."""
    newest: dict[str, tuple[int, ...]] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if ".so" not in name:
                    continue
                for library, version in _SYMBOL.findall(archive.read(name)):
                    numbers = tuple(map(int, version.split(b".")))
                    newest[library.decode()] = max(newest.get(library.decode(), (0,)), numbers)
    return {library: ".".join(map(str, numbers)) for library, numbers in sorted(newest.items())}


def trim(wheel: Path, kept: re.Pattern[str], folder: Path) -> Path:
    """The wheel with only the files whose names match, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / wheel.name
    rows: list[str] = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        record = next(name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
        for item in old.infolist():
            if item.filename == record or not kept.match(item.filename):
                continue
            content = old.read(item)
            new.writestr(item, content, zipfile.ZIP_DEFLATED, 9)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            rows.append(f"{item.filename},sha256={digest.decode()},{len(content)}\n")
        new.writestr(record, "".join(rows) + f"{record},,\n")
    return path
