"""What is being downloaded into the models folder, noted on disk so that it outlives the program.

A manifest lists the files of one model at one commit; it lies beside the part files, is written
before the first byte and removed after the last, and its lock tells which program downloads. Folders
are created here, and never through a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.common.folders import MODELS_DEPTH, files_below
from engine.common.whole_files import sync_folder, write_whole
from engine.errors import KtchatError
from engine.hub.errors import DownloadBusyError, DownloadError, UnsafeNameError
from engine.hub.names import MAX_PARTS, HubFile, HubModel, is_repo, safe_path

ENDING = ".download.json"
MAX_BYTES = 1 << 20


def target(folder: Path, file: HubFile) -> Path:
    """Where a file of the hub belongs: `folder`/owner/repo/path. Raises `UnsafeNameError`."""
    if not is_repo(file.repo):
        raise UnsafeNameError("The repository's name is not one of the hub")
    owner_and_name = [safe_path(part) for part in file.repo.split("/")]
    return folder.joinpath(*owner_and_name, *safe_path(file.path).split("/"))


def make_folder(folder: Path, inner: Path) -> None:
    """Create the folders from `folder` down to `inner`. Raises `DownloadError`, also at a link."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        here = folder
        for part in inner.relative_to(folder).parts:
            here = here / part
            with contextlib.suppress(FileExistsError):
                here.mkdir(mode=0o700)
            if here.is_symlink() or not here.is_dir():
                raise DownloadError(
                    "The models folder has a link or a file where a folder belongs",
                    str(here),
                    "Move it away",
                )
    except OSError as error:
        raise DownloadError(
            "The models folder cannot be written", error.strerror or "", "Check its permissions"
        ) from error


@dataclass(frozen=True, slots=True)
class Manifest:
    """A download that is not finished: the model and where its manifest lies."""

    path: Path
    model: HubModel


def manifest_path(folder: Path, model: HubModel) -> Path:
    """Where the manifest of a model lies."""
    return Path(f"{target(folder, model.files[0])}{ENDING}")


def write(path: Path, model: HubModel) -> None:
    """Write a manifest. Raises `OSError`."""
    write_whole(path, json.dumps(asdict(model), indent=1).encode())


def read(path: Path) -> HubModel | None:
    """The model of a manifest; None when it is not one, or names files that it may not."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MAX_BYTES))
        files = tuple(HubFile(**entry) for entry in data["files"])
        model = HubModel(data["repo"], data["commit"], data["quantisation"], files)
        _check(model)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, KtchatError):
        return None
    return model


def _check(model: HubModel) -> None:
    texts = [model.repo, model.commit, model.quantisation]
    for file in model.files:
        texts += [file.repo, file.commit, file.path, file.checksum]
    if not all(isinstance(text, str) and len(text) < 2000 for text in texts):
        raise ValueError
    if not 1 <= len(model.files) <= MAX_PARTS:
        raise ValueError
    for file in model.files:
        if type(file.size) is not int or not 0 < file.size < 1 << 50:
            raise ValueError
        if file.repo != model.repo or file.commit != model.commit:
            raise ValueError
        target(Path("/"), file)


def unfinished(folder: Path) -> list[Manifest]:
    """The downloads that were begun in the models folder and are not finished."""
    found = []
    for path in files_below(folder, MODELS_DEPTH):
        model = read(path) if path.name.endswith(ENDING) else None
        if model is not None and manifest_path(folder, model) == path:
            found.append(Manifest(path, model))
    return found


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the download whose manifest is or will be at `path` for this program.

    Raises `DownloadBusyError` when another program has it, or `OSError`.
    """
    lock = Path(f"{path}.lock")
    handle = _locked(lock)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether some program, this one or another, downloads what the manifest at `path` lists."""
    try:
        os.close(_locked(Path(f"{path}.lock"), create=False))
    except DownloadBusyError:
        return True
    except OSError:
        return False
    return False


def _locked(lock: Path, create: bool = True) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    while True:
        handle = os.open(lock, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if not isinstance(error, BlockingIOError):
                raise
            raise DownloadBusyError(
                "Another ktchat downloads this model",
                "Two would disturb each other",
                "Wait for it, or stop it there",
            ) from None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        os.close(handle)  # its last holder removed the file meanwhile


def remove(path: Path) -> None:
    """Remove a manifest, if it is there. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sync_folder(path.parent)
