"""Model files on this machine: the built-in guide, the models folder, files opened before.

Each is described by its header. A file that cannot be read is listed too, with the reason.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from engine.common.folders import models_below
from engine.errors import KtchatError, ModelFileError
from engine.protocol import PartialSampling
from engine.remote.address import is_address
from ktchat.common import paths
from ktchat.common.text import one_line


class Source(StrEnum):
    """Where a model was found."""

    GUIDE = "guide"
    """It comes with ktchat."""
    FOLDER = "folder"
    """In the models folder."""
    RECENT = "recent"
    """It was opened before, or named."""


MAX_MODELS = 500


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model on disk. All texts but `path` are safe to draw; `size` is in bytes."""

    path: str
    source: Source
    name: str
    architecture: str = ""
    quantisation: str = ""
    size: int = 0
    runtime: str = ""
    """What would run it: native (ours) or llama.cpp."""
    error: str = ""
    """Why it cannot be used; empty when nothing speaks against it."""
    sampling: PartialSampling = field(default_factory=PartialSampling)
    """What its file says of sampling."""

    @property
    def shown_path(self) -> str:
        """The path, safe to draw."""
        return one_line(self.path, 1000)


def find_models(
    recent: Sequence[str] = (), folder: Path | None = None
) -> Iterator[tuple[str, Source]]:
    """Paths of models and where each was found, without reading them; each file once.

    A link that `leads_outside` hides nothing: what it names may be listed under its own path, too.
    """
    folder = folder or paths.models_folder()
    seen: set[str] = set()
    guide = paths.guide_model()
    found: list[tuple[Iterable[str], Source]] = [
        ([str(guide)] if guide else [], Source.GUIDE),
        (map(str, models_below(folder)), Source.FOLDER),
        (recent, Source.RECENT),
    ]
    for candidates, source in found:
        for path in candidates:
            outside = source == Source.FOLDER and leads_outside(path, folder)
            real = str(Path(path).absolute()) if outside else os.path.realpath(path)
            if real not in seen and len(seen) < MAX_MODELS:
                seen.add(real)
                yield path, source


def leads_outside(path: str, folder: Path | None = None) -> bool:
    """Whether a file in the models folder is a link out of it: it is listed, and not followed unasked.

    What `ktchat models import` linked the person has asked for. The folder itself may be a link.
    """
    from engine.downloads.import_local import IMPORTED

    folder = folder or paths.models_folder()
    here = Path(path).absolute()
    if (folder / IMPORTED).absolute() in here.parents:
        return False
    return Path(os.path.realpath(folder)) not in Path(os.path.realpath(here)).parents


def describe(path: str, source: Source = Source.RECENT) -> ModelEntry:
    """What a model's header says. Never raises: a broken file has `error` set.

    A link out of the models folder that was found there is not read; one that the person named is.
    """
    name = one_line(Path(path).name.removesuffix(".gguf"), 80)
    if source == Source.FOLDER and leads_outside(path):
        return ModelEntry(path, source, name, error=one_line(str(_outside(path)), 400))
    try:
        from engine.generation.own_sampling import own_sampling
        from engine.gguf.file import GGUFFile
        from engine.spec.reader import read_spec

        with GGUFFile.open(Path(path)) as file:
            size = sum(part.stat().st_size for part in file.paths)
            spec, sampling = read_spec(file), own_sampling(file.metadata)
    except KtchatError as error:
        return ModelEntry(path, source, name, error=one_line(str(error), 400), size=_size(path))
    except OSError as error:
        why = one_line(error.strerror or str(error))
        return ModelEntry(path, source, name, error=f"{name} cannot be read: {why}.")
    return ModelEntry(
        path=path,
        source=source,
        name=one_line(spec.name, 80) or name,
        architecture=one_line(spec.architecture, 40),
        quantisation=one_line(spec.quantisation, 40),
        size=size,
        runtime=spec.runtime,
        sampling=sampling,
    )


def model_named(name: str, recent: Sequence[str] = ()) -> str:
    """The path of the model on this machine with this file name, or the beginning or a part of it; or a path itself.

    Raises `ModelFileError` when none or several have it.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if (path := Path(name).expanduser()).is_file():
            return str(path.absolute())
    wanted = name.lower().removesuffix(".gguf")
    known = dict(find_models(recent))
    names = {path: Path(path).name.lower().removesuffix(".gguf") for path in known}
    tests = (wanted.__eq__, lambda name: name.startswith(wanted), lambda name: wanted in name)
    for fits in tests:
        found = [path for path, name in names.items() if fits(name)]
        if len(found) == 1:
            if known[found[0]] == Source.FOLDER and leads_outside(found[0]):
                raise _outside(found[0])
            return found[0]
        if found:
            several = ", ".join(one_line(Path(path).name, 60) for path in found[:4])
            raise ModelFileError("More than one model is called so", several, "Write more of it")
    raise ModelFileError(
        f"There is no model {one_line(name, 60)} here", "", "Choose one with Ctrl+O"
    )


def default_model(last: str = "") -> str:
    """The model to start with: the one used last if it is still there or on a server, else the guide.

    Raises `ModelFileError` when there is neither.
    """
    if last and (is_address(last) or Path(last).is_file()):
        return last
    guide = paths.guide_model()
    if guide is None:
        raise ModelFileError(
            "There is no model to start with",
            f"The built-in guide (assets/{paths.GUIDE}) is not in this copy of ktchat",
            "Name a model file: ktchat -m PATH.gguf",
        )
    return str(guide)


def _outside(path: str) -> ModelFileError:
    return ModelFileError(
        f"{one_line(Path(path).name, 80)} is a link out of the models folder, which is not followed",
        f"It leads to {one_line(os.path.realpath(path), 200)}",
        "Open that file by its own path, or take it in: ktchat models import FILE",
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
