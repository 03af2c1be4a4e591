"""Where the GPU kernels' tests run."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.gpu.gpu_cases import DEVICE


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or the CPU for Triton's interpreter."""
    return torch.device(DEVICE)
