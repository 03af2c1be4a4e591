"""Kernels compiled for GPUs that need not be there, from the calls of their launchers.

A kernel is compiled as Triton would on that GPU, but for what does not differ: GPUs 8.x share their PTX, and a
kernel without `tl.dot` its TTGIR with the generation before (`LIKE`). `differences` holds both against
compilations from the source.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from kernels.gpu.quant import gemv

TARGETS = (80, 86, 89, 90, 100, 120)
FIRST = 80
OLDER = (80, 86, 89)
"""Those without kernels that wait for the one before by themselves (`kernels.gpu.dependents`)."""
SAME_PTX = (86, 89)
"""Those that assemble the PTX of the first."""
LIKE = {120: 100}
"""Of kernels without `tl.dot`: whose TTGIR a target shares."""
LOOPS_OF = 89
"""The target whose loops are counted: disassembling takes as long as compiling. Others' were within two percent."""
MULTIPROCESSORS = 128
"""Of the GPU that launchers see: they choose tiles and splits by it. An RTX 4090's."""


class AbsentGpu:
    """The little that a launch asks of a driver before it runs anything."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> str:
        return f"sm_{self._target.arch}"

    def get_current_stream(self, device: Any) -> int:
        return 0


def target(arch: int) -> GPUTarget:
    return GPUTarget("cuda", arch, 32)


@contextmanager
def launches(handle: Callable[..., Any], arch: int) -> Iterator[None]:
    """Launches go to `handle(compile, function, *args, **kwargs)` and do not run; `compile()` compiles for `arch`."""
    run = JITFunction.run

    def no_run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        options = kwargs if arch in OLDER else kwargs | {"launch_pdl": True}
        compile_it = functools.partial(run, self, *args, grid=grid, warmup=True, **options)
        return handle(compile_it, self, *args, **kwargs)

    driver.set_active(AbsentGpu(target(arch)))
    counted, gemv.multiprocessors = gemv.multiprocessors, lambda device: MULTIPROCESSORS
    JITFunction.run = no_run
    try:
        yield
    finally:
        JITFunction.run = run
        gemv.multiprocessors = counted
        driver._active = None


def compiled(case: Callable[[], Any], arch: int) -> list[Any]:
    """The kernels that a case launches, compiled for `arch` from their source."""
    kernels: list[Any] = []

    def keep(compile_it: Callable[[], Any], *call: Any, **named: Any) -> Any:
        kernels.append(compile_it())
        return kernels[-1]

    with launches(keep, arch):
        case()
    return kernels


@dataclass(frozen=True, slots=True)
class Binary:
    """A kernel for one target. `kernel` is as compiled from the source, maybe for another one."""

    arch: int
    kernel: Any
    cubin: bytes
    shared: int


def binaries(case: Callable[[], Any], archs: Sequence[int] = TARGETS) -> Iterator[Binary]:
    """Everything that a case launches, for all of `archs`."""
    yield from filter(lambda binary: binary.arch in archs, _binaries(case, archs))


def _binaries(case: Callable[[], Any], archs: Sequence[int]) -> Iterator[Binary]:
    """The same, and maybe what it is made from for another target."""
    dots = False
    first = (FIRST, {FIRST, *SAME_PTX}), (90, {90}), (100, {100, *LIKE})
    for arch in (arch for arch, serves in first if serves & {*archs}):
        for kernel in compiled(case, arch):
            yield _binary(arch, kernel, kernel)
            for other in SAME_PTX if arch == FIRST else ():
                if other in archs:
                    yield Binary(other, kernel, assembled(kernel, other), kernel.metadata.shared)
            dots |= (dot := has_dot(kernel))
            for other in () if dot or arch != 100 else filter(archs.__contains__, LIKE):
                yield _binary(other, kernel, from_ttgir(kernel, other))
    for arch in filter(archs.__contains__, LIKE if dots else ()):
        yield from (_binary(arch, one, one) for one in compiled(case, arch) if has_dot(one))


def _binary(arch: int, kernel: Any, low: Any) -> Binary:
    return Binary(arch, kernel, low.asm["cubin"], low.metadata.shared)


def has_dot(kernel: Any) -> bool:
    """Whether it uses the tensor cores, which every generation has of its own."""
    return re.search(r"tt\.dot|_dot\b|_mma\b", kernel.asm["ttgir"]) is not None


def assembled(kernel: Any, arch: int) -> bytes:
    """A kernel's PTX assembled for another target."""
    backend: Any = make_backend(target(arch))
    options = backend.parse_options({"num_warps": kernel.metadata.num_warps})
    ptx = re.sub(r"\.target sm_\w+", f".target sm_{arch}", kernel.asm["ptx"])
    cubin: bytes = backend.make_cubin(ptx, {}, options, arch)
    return cubin


def from_ttgir(kernel: Any, arch: int) -> Any:
    """A kernel's TTGIR lowered for another target."""
    text = re.sub(r'"cuda:\d+"', f'"cuda:{arch}"', kernel.asm["ttgir"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{kernel.name}.ttgir")
        file.write_text(text)
        return triton.compile(str(file), target=target(arch))


def differences(case: Callable[[], Any]) -> list[str]:
    """Where what targets share is not what each would have got of its own."""
    kernels, wrong = {arch: compiled(case, arch) for arch in TARGETS}, []
    for arch, of, part in [(a, FIRST, "ptx") for a in SAME_PTX] + [
        (a, b, "ttgir") for a, b in LIKE.items()
    ]:
        for ours, theirs in zip(kernels[arch], kernels[of], strict=True):
            shared = part == "ptx" or not has_dot(theirs)
            if shared and _plain(ours.asm[part]) != _plain(theirs.asm[part]):
                wrong.append(f"{ours.name}: the {part} of sm_{arch} is not that of sm_{of}")
    return wrong


def _plain(text: str) -> str:
    """Without the target's name and line numbers."""
    return re.sub(r'\.target sm_\w+|"cuda:\d+"|\.loc\t.*', "", text)
