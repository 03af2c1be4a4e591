"""Programmatic dependent launch (CUDA programming guide, compute capability 9.0): a kernel is there before the one
before it has ended.

Launched so, its programs take their places as soon as all of the kernel before have begun, and wait for that kernel's
results themselves: what a launch takes is then hidden behind it. In a capture it becomes a programmatic edge. Behind
a copy or a kernel launched otherwise nothing begins early. KTCHAT_GPU_DEPENDENTS=0 switches it off.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.target_info import cuda_capability_geq

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))

LEAST_COMPUTE = 9, 0


@cache
def early(device: torch.device) -> dict[str, Any]:
    """What a launch is given, of a kernel that begins with `behind_previous`."""
    if device.type != "cuda" or os.environ.get("KTCHAT_GPU_DEPENDENTS", "1") == "0":
        return {}
    known = torch.cuda.get_device_capability(device) >= LEAST_COMPUTE
    return {"launch_pdl": True} if known else {}


@triton.jit
def behind_previous():
    """Wait until everything before this kernel is done and can be seen; the next kernel may take its places.

    Comes before anything is read that a kernel writes, or written that one reads; nobody may leave it out, since the
    next kernel waits for this one only. Returns zero, to be added to pointers that are read by `words`: nothing else
    tells the compiler that such loads are behind it.
    """
    if INTERPRETED:
        return 0
    if cuda_capability_geq(9, 0):
        zero = tl.inline_asm_elementwise(
            "griddepcontrol.wait; mov.u32 $0, 0;", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )
        tl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; mov.u32 $0, 0;",
            "=r",
            [],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
        return zero
    return 0
