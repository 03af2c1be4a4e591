"""Loads the native library; `op_table` has its signatures.

A call releases the GIL.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from kernels.cpu.build import build
from kernels.cpu.op_table import FUNCTIONS, OPS

ISAS = ("avx512vnni", "avx512", "avxvnni", "avx2", "plain")
"""Instruction sets with kernels of their own, best first."""


class NativeError(RuntimeError):
    """The native library cannot be loaded or started."""


class RopeStruct(ctypes.Structure):
    """`struct Rope` of attention.h."""

    _fields_ = (
        ("frequencies", POINTER(ctypes.c_double)),
        ("pairs", c_int64),
        ("offset", c_int64),
        ("magnitude", c_float),
        ("interleaved", c_int32),
    )


class RoutingStruct(ctypes.Structure):
    """`struct Routing` of experts.h."""

    _fields_ = (
        ("top_k", c_int64),
        ("groups", c_int64),
        ("top_groups", c_int64),
        ("scale", c_float),
        ("floor", c_float),
        ("gating", c_int32),
        ("normalise", c_int32),
    )


def layer_of(name: str, arguments: Sequence[object]) -> int | None:
    """The layer that a call of an op is for; None where its arguments do not say."""
    op = OPS[name]
    if op.layer is None:
        return None
    pairs = zip(op.expanded, arguments, strict=True)
    integers = [value for kind, value in pairs if kind != "f"]
    layer = integers[op.layer]
    assert isinstance(layer, int)
    return layer


_ERRORS: dict[int, tuple[type[Exception], str]] = {
    1: (ValueError, "shapes do not fit together"),
    2: (MemoryError, "no memory for scratch buffers"),
    3: (IndexError, "a token, expert, layer or page number is out of range"),
    4: (TimeoutError, "the device did not ask for its experts"),
}


def check(status: int) -> None:
    """Raise what a native status means; 0 means done."""
    if status:
        kind, text = _ERRORS[status]
        raise kind(text)


@cache
def load() -> ctypes.CDLL:
    """The native library with typed functions, built first if its sources changed.

    KTCHAT_CPU_LIB names another build of it, such as the sanitised one.
    """
    override = os.environ.get("KTCHAT_CPU_LIB")
    path = Path(override) if override else build()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError(f"{path} cannot be loaded: {error}") from error
    for symbol, line in FUNCTIONS.items():
        function = getattr(library, symbol)
        function.restype, function.argtypes = line.restype, line.argtypes
    return library


def address_of(name: str) -> int:
    """Where a function of the library begins, for a driver that calls it."""
    address = ctypes.cast(getattr(load(), name), c_void_p).value
    assert address is not None
    return address


def supported_isas() -> list[str]:
    """The instruction sets that this build and this CPU have, best first."""
    library = load()
    return [isa for isa in ISAS if library.kt_supported(isa.encode())]


def choose_isa() -> str:
    """The best instruction set, or the one that KTCHAT_ISA names."""
    wanted = os.environ.get("KTCHAT_ISA")
    available = supported_isas()
    if not wanted:
        return available[0]
    if wanted not in available:
        raise NativeError(f"KTCHAT_ISA={wanted} is not one of {', '.join(available)} here.")
    return wanted


def open_context(isa: str, threads: int, cpus: Sequence[int]) -> int:
    """A started native context; close it with kt_close."""
    array = (c_int * len(cpus))(*cpus)
    handle = load().kt_open(isa.encode(), threads, array, len(cpus))
    if not handle:
        raise NativeError(f"{threads} threads with {isa} kernels cannot be started.")
    return int(handle)
