"""Models that other programs on this machine have, and taking a local file into the models folder.

The folders of LM Studio, Ollama, llama.cpp and the Hugging Face cache are only read. A file is
linked or moved, never copied.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.common.folders import files_below, models_below
from engine.downloads.integrity import parts_of, write_unchecked_record
from engine.downloads.manifest import make_folder
from engine.errors import ModelFileError
from engine.hub.errors import DownloadError, UnsafeNameError
from engine.hub.names import is_model_file, safe_path

MAX_DEPTH = 6
MAX_FOUND = 500
IMPORTED = "imported"
"""The folder for imported files in the models folder."""
_BLOB = re.compile(r"sha256[:-]([0-9a-f]{64})")

ImportMode = Literal["linked", "linked by name", "moved"]


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model of another program. Texts come from file names: not safe to draw."""

    program: str
    name: str
    path: Path
    """The first file."""
    size: int
    """Bytes of all files."""
    checksum: str = ""
    """`sha256:HEX` if the program says so in the file's name."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that was taken in, and how: by a hard link, a symbolic link, or moved."""

    path: Path
    mode: ImportMode


def find_models(
    environment: Mapping[str, str] = os.environ, home: Path | None = None
) -> list[FoundModel]:
    """Models in the folders of other programs, each file once. Reads names and first bytes."""
    found: list[FoundModel] = []
    seen: set[str] = set()
    for program, finder in _PROGRAMS.items():
        for name, path, checksum in finder(environment, home or Path.home()):
            real = os.path.realpath(path)
            if real in seen or len(found) >= MAX_FOUND or not _is_gguf(path):
                continue
            seen.add(real)
            with contextlib.suppress(OSError):
                size = sum(part.stat().st_size for part in parts_of(path))
                found.append(FoundModel(program, name, path, size, checksum))
    return found


def import_model(
    path: Path, folder: Path, move: bool = False, name: str = "", checksum: str = ""
) -> Imported:
    """Take the model at `path` (all its files) into the models folder, linked unless `move`.

    A hard link where the disk allows it, else a symbolic one. `name` is for files that have no
    speaking one. Raises `ModelFileError` or `DownloadError`.
    """
    parts = [Path(os.path.realpath(part)) for part in parts_of(path.absolute())]
    names = [name] if name and len(parts) == 1 else [part.name for part in parts_of(path)]
    for part in parts:
        if not _is_gguf(part):
            raise ModelFileError(
                f"{part.name} is not a GGUF model", str(part), "Choose a .gguf file"
            )
    targets = [folder / IMPORTED / _file_name(file) for file in names]
    make_folder(folder, folder / IMPORTED)
    modes: set[ImportMode] = set()
    for part, target in zip(parts, targets, strict=True):
        try:
            modes.add(_take(part, target, move))
        except OSError as error:
            raise _refused(part, error, move) from error
    if checksum and len(parts) == 1:
        with contextlib.suppress(OSError):  # without it nothing but a later check is lost
            write_unchecked_record(targets[0], checksum)
    return Imported(targets[0], "linked by name" if "linked by name" in modes else modes.pop())


def _take(part: Path, target: Path, move: bool) -> ImportMode:
    if target.exists() and target.samefile(part):
        return "linked"
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "a file of that name is there", str(target))
    if move:
        part.rename(target)
        return "moved"
    try:
        target.hardlink_to(part)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        target.symlink_to(part)
        return "linked by name"
    return "linked"


def _refused(part: Path, error: OSError, move: bool) -> DownloadError:
    if error.errno == errno.EEXIST:
        why, todo = "The models folder has another file of that name", "Rename one of them"
    elif error.errno == errno.EXDEV and move:
        why, todo = "It is on another disk and would have to be copied", "Link it instead"
    else:
        why, todo = error.strerror or str(error), "Check the permissions of both folders"
    return DownloadError(f"{part.name} cannot be taken in", why, todo)


def _file_name(name: str) -> str:
    """A harmless file name for a model."""
    try:
        return (
            safe_path(name) if "/" not in name and name.lower().endswith(".gguf") else _slug(name)
        )
    except UnsafeNameError:
        return _slug(name)


def _slug(name: str) -> str:
    plain = re.sub(r"[^\w.-]+", "-", name.removesuffix(".gguf"), flags=re.ASCII).strip("-.")
    return f"{plain[:120] or 'model'}.gguf"


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


Finder = Callable[[Mapping[str, str], Path], Iterator[tuple[str, Path, str]]]


def _lm_studio(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, Path, str]]:
    folders = [home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"]
    for settings in (home / ".lmstudio" / "settings.json",):
        chosen = _json(settings).get("downloadsFolder")
        if isinstance(chosen, str) and chosen.startswith("/"):
            folders.append(Path(chosen))
    yield from _gguf_files(folders)


def _llama_cpp(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, Path, str]]:
    folders = [
        Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "llama.cpp",
        home / "Library" / "Caches" / "llama.cpp",
    ]
    if environment.get("LLAMA_CACHE"):
        folders.insert(0, Path(environment["LLAMA_CACHE"]))
    yield from _gguf_files(folders)


def _hugging_face(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, Path, str]]:
    base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface"
    base = Path(environment.get("HF_HOME") or base)
    for name, path, _ in _gguf_files([Path(environment.get("HF_HUB_CACHE") or base / "hub")]):
        blob = Path(os.path.realpath(path)).name  # named by its sha256
        yield name, path, f"sha256:{blob}" if re.fullmatch("[0-9a-f]{64}", blob) else ""


def _ollama(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, Path, str]]:
    folders = [home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]
    if environment.get("OLLAMA_MODELS"):
        folders.insert(0, Path(environment["OLLAMA_MODELS"]))
    for folder in folders:
        for manifest in files_below(folder / "manifests", MAX_DEPTH):
            blob = _model_layer(_json(manifest))
            if blob:
                yield (
                    f"{manifest.parent.name}-{manifest.name}.gguf",
                    folder / "blobs" / f"sha256-{blob}",
                    f"sha256:{blob}",
                )


def _model_layer(manifest: Mapping[str, object]) -> str:
    layers = manifest.get("layers")
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and layer.get("mediaType") == (
            "application/vnd.ollama.image.model"
        ):
            match = _BLOB.fullmatch(str(layer.get("digest")))
            return match[1] if match else ""
    return ""


_PROGRAMS: dict[str, Finder] = {
    "LM Studio": _lm_studio,
    "Ollama": _ollama,
    "llama.cpp": _llama_cpp,
    "Hugging Face": _hugging_face,
}


def _gguf_files(folders: list[Path]) -> Iterator[tuple[str, Path, str]]:
    for folder in folders:
        for path in models_below(folder, MAX_DEPTH):
            if is_model_file(path.name):
                yield path.name, path, ""


def _json(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(1 << 20))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
