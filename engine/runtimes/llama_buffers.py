"""Where llama.cpp may keep weights in a form of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile


def may_rearrange(path: Path) -> bool:
    """Whether llama.cpp 0.3.36 may: with AMX it takes matrices that come in stacks (MLA's heads) into a buffer
    whose products know single ones only, and aborts at the first graph. Experts go another way.
    """
    if not _has_amx():
        return True
    try:
        with GGUFFile.open(path) as file:
            return not any(
                len(info.shape) > 2 and info.type.block > 1 and "_exps." not in info.name
                for info in file.tensors.values()
            )
    except ModelFileError:  # llama.cpp says what is wrong with it
        return True


@cache
def _has_amx() -> bool:
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
