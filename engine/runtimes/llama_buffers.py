"""Where llama.cpp may keep weights in a form of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from engine.process.confinement import without_amx


@cache
def may_rearrange() -> bool:
    """Whether llama.cpp may. It shall not use AMX: compiled by GCC 12 it runs into illegal instructions there, and it
    takes matrices that come in stacks (MLA's heads) into a buffer whose products know single ones only. Call this
    before it looks for its buffers.
    """
    return not has_amx() or without_amx()


@cache
def has_amx() -> bool:
    """Whether this processor has it."""
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
