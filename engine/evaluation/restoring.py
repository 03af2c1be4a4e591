"""How long a conversation takes to come back from the disk, as a share of reading it again."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.common.units import count
from engine.disk_cache.folder import CacheFolder
from engine.errors import KtchatError, RequestError, UnsupportedModelError
from engine.gguf.file import GGUFFile
from engine.protocol import Computed, Device
from engine.protocol import Load as Request
from engine.runtimes.chosen import open_native
from engine.runtimes.native import NativeRuntime
from engine.runtimes.on_disk import OnDisk
from engine.spec.reader import read_spec
from kernels.ops import Floats

MORE = 12
"""Tokens of the message that is sent once the session is open again."""
FOR_EVER = 86400.0

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """Seconds of wall time; `cold` tells whether the files had to come from the disk itself."""

    model: str
    quantisation: str
    device: Computed
    threads: int | None
    tokens: int
    more: int
    """Tokens read after them."""
    read_s: float
    """Reading them all, to the first token."""
    write_s: float
    kv_bytes: int
    restored: int
    first_token_s: float
    """From the prompt to the first token, with what is on the disk."""
    cold: bool
    same: bool
    """The logits are the same to the bit."""

    @property
    def share(self) -> float:
        """Of the seconds of reading."""
        return self.first_token_s / self.read_s

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "share": self.share}


def bench_restore(
    path: Path,
    tokens: int,
    folder: Path,
    *,
    threads: int | None = None,
    device: Device = "auto",
    report: Report = lambda what, done, total: None,
) -> RestoreResult:
    """Read so many random tokens, write their KV below `folder`, load the model anew and go on from there.

    The system is asked to forget the files in between, so that they come from the disk. Raises what loading raises,
    `RequestError` for tokens that the model's context does not hold, and `KtchatError` where the disk has no room.
    """
    context = tokens + MORE + 1
    prompt = np.random.default_rng(0).integers(0, 250, tokens + MORE).tolist()
    request = Request(str(path), context, threads, device=device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".kv-bench-", dir=folder)
    except OSError as error:
        raise KtchatError(f"{folder} cannot be written", error.strerror or str(error)) from error
    with temporary as name:
        cache = CacheFolder(Path(name) / "kv")
        with _opened(path, request, cache, report) as (runtime, disk, model):
            runtime.begin(prompt[:tokens])
            start = time.perf_counter()
            _read(runtime, prompt[:tokens], report)
            before = time.perf_counter() - start
            report("writing", 0, 0)
            start = time.perf_counter()
            disk.save("bench")
            disk.finish(FOR_EVER)
            written = time.perf_counter() - start
            if words := disk.notice():
                raise KtchatError("The KV could not be written", words, "Free some space")
            start = time.perf_counter()
            logits = _read(runtime, prompt[tokens:], report)
            before += time.perf_counter() - start
        cold = _forget_pages(cache)
        with _opened(path, request, cache, report) as (runtime, disk, model):
            start = time.perf_counter()
            runtime.begin(prompt)
            restored = disk.restore(prompt, lambda there: True)
            again = _read(runtime, prompt[restored:], report)
            first = time.perf_counter() - start
            return RestoreResult(
                *model,
                device=runtime.device,
                threads=threads,
                tokens=tokens,
                more=MORE,
                read_s=before,
                write_s=written,
                kv_bytes=cache.used(),
                restored=restored,
                first_token_s=first,
                cold=cold,
                same=bool(np.array_equal(again, logits)),
            )


Opened = tuple[NativeRuntime, OnDisk, tuple[str, str]]


@contextmanager
def _opened(path: Path, request: Request, cache: CacheFolder, report: Report) -> Iterator[Opened]:
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        if not spec.native:
            raise UnsupportedModelError(
                f"{path.name} cannot be measured", f"Only llama.cpp runs it: {spec.unsupported}"
            )
        assert isinstance(request.context, int)
        if request.context > spec.context:
            raise RequestError(
                f"{count(request.context)} tokens do not fit",
                f"{path.name} has a context of {count(spec.context)}",
                f"Use --restore {spec.context - MORE - 1}",
            )
        runtime = open_native(
            *(file, spec, request), progress=lambda done, total: report("loading", done, total)
        )
        disk = runtime.on_disk(cache, file.paths, 1 << 60)
        try:
            yield runtime, disk, (spec.name or path.name, spec.quantisation)
        finally:
            disk.close()
            runtime.close()


def _read(runtime: NativeRuntime, tokens: Sequence[int], report: Report) -> Floats:
    """Append tokens in chunks; logits of the last."""
    logits = np.empty(0, np.float32)
    for first in range(0, len(tokens), runtime.chunk):
        report("reading", first, len(tokens))
        logits = runtime.forward(tokens[first : first + runtime.chunk])
    return logits.copy()


def _forget_pages(cache: CacheFolder) -> bool:
    """Have the system write the files out and forget them; whether it can be asked to."""
    for entry in cache.entries():
        handle = os.open(entry.path, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return False
        finally:
            os.close(handle)
    return True
