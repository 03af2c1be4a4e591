"""GPU kernels in Triton's interpreter on the CPU, or compiled where KTCHAT_GPU_TESTS=1 asks for it.

Triton decides when a kernel is defined: the setting has to stand before anything imports one.
"""

from __future__ import annotations

import os

import pytest
import torch

COMPILED = os.environ.get("KTCHAT_GPU_TESTS") == "1" and torch.cuda.is_available()
if not COMPILED:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if COMPILED else "cpu")
