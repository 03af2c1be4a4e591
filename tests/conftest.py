"""GPU kernels run in Triton's interpreter on the CPU, or compiled where KTCHAT_GPU_TESTS=1 asks for it.

Triton decides when a kernel is defined: the setting has to stand before any test imports one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import interpreter, shared


def _compiled() -> bool:
    if os.environ.get("KTCHAT_GPU_TESTS") != "1":
        return False
    import torch

    return torch.cuda.is_available()


if not _compiled():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_finish() -> None:
    """Tests have been imported, and kernels with them."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        interpreter.repeat_less()


@pytest.fixture(scope="session", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what is made once in a run: one for all workers. Nobody may change what lies there."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.share(folder)
    return folder
