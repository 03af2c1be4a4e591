"""GPU kernels run in Triton's interpreter on the CPU, or compiled where KTCHAT_GPU_TESTS=1 asks for it.

Triton decides when a kernel is defined: the setting has to stand before any test imports one.
"""

from __future__ import annotations

import os


def _compiled() -> bool:
    if os.environ.get("KTCHAT_GPU_TESTS") != "1":
        return False
    import torch

    return torch.cuda.is_available()


if not _compiled():
    os.environ["TRITON_INTERPRET"] = "1"
