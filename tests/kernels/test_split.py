"""A forward pass divided between two op sets says what one op set says, wherever the experts are.

The reference stands for the device, so that the split itself is exercised on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.gguf import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec import ModelSpec
from kernels.cpu import CpuOps
from kernels.ops import Floats, Ops, Tensor
from kernels.reference import ReferenceOps
from kernels.split import Residency, SplitOps
from tests.support.fidelity import logits, nmse
from tests.support.tiny import MOE_MODELS, tiny_model

torch.set_num_threads(1)
CHUNKS = (1, 20, 1, 1, 1, 40)
TOKENS = np.random.default_rng(5).integers(0, 250, sum(CHUNKS)).tolist()


def none(tensor: Tensor) -> Sequence[int]:
    return ()


def every(tensor: Tensor) -> Sequence[int]:
    return range(tensor.shape[0])


def every_third(tensor: Tensor) -> Sequence[int]:
    return range(0, tensor.shape[0], 3)


def by_layer(tensor: Tensor) -> Sequence[int]:
    """All of some layers, none of others, and half of the rest."""
    layer = int(tensor.name.split(".")[1])
    return range(tensor.shape[0] * (layer % 3) // 2)


class NumpyReference(ReferenceOps):
    """The reference with numpy's buffers, as a host has them."""

    def embed(self, table: Any, tokens: Any) -> Any:
        return super().embed(table, tokens).numpy()

    def moe_add(self, x: Any, ids: Any, weights: Any, *rest: Any) -> None:
        *experts, residual = rest
        shared = (torch.from_numpy(array) for array in (x, ids, weights))
        super().moe_add(*shared, *experts, torch.from_numpy(residual))


def run(path: Path, ops: Ops[Any, Any, Any]) -> Floats:
    return logits(path, ops, CHUNKS, TOKENS)


@pytest.mark.parametrize("residency", [none, every, every_third, by_layer])
@pytest.mark.parametrize(("architecture", "variant"), MOE_MODELS, ids=lambda name: name)
def test_logits_do_not_depend_on_where_experts_are(
    architecture: str, variant: str, residency: Residency, tmp_path: Path
) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant)
    whole = run(path, ReferenceOps())
    split = SplitOps(ReferenceOps(), NumpyReference(), residency)
    assert nmse(run(path, split), whole) < 1e-10  # only the order of the sums differs
    split.close()


@pytest.mark.parametrize("residency", [none, every_third])
def test_the_host_computes_with_its_own_kernels(residency: Residency, tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    split = SplitOps(ReferenceOps(), CpuOps(2), residency)
    on_cpu = nmse(run(path, CpuOps(2)), run(path, ReferenceOps()))
    assert nmse(run(path, split), run(path, ReferenceOps())) <= 1.05 * on_cpu + 1e-11
    split.close()


class Watched(CpuOps):
    """Notes the experts that it computes."""

    def __init__(self) -> None:
        super().__init__(1)
        self.pairs: list[int] = []

    def moe_add(self, x: Any, ids: Any, *rest: Any) -> None:
        self.pairs.append(int((ids >= 0).sum()))
        super().moe_add(x, ids, *rest)


@pytest.mark.parametrize(("residency", "share"), [(none, 1.0), (every, 0.0), (every_third, 0.66)])
def test_each_side_computes_its_own_experts_only(
    residency: Residency, share: float, tmp_path: Path
) -> None:
    host = Watched()
    path = tiny_model("qwen3moe", tmp_path)
    with GGUFFile.open(path) as file:
        spec = ModelSpec.from_file(file)
        split = SplitOps(ReferenceOps(), host, residency)
        model: Transformer[Any, Any, Any] = Transformer(file, spec, split, 4, 32)
        model.forward_all(np.arange(60, dtype=np.int32), page_table([0, 1, 2, 3]), 0)
    assert spec.moe is not None
    pairs = 60 * spec.moe.top_k * spec.moe_layers
    assert sum(host.pairs) / pairs == pytest.approx(share, abs=0.15 if 0 < share < 1 else 0)
    split.close()


def test_a_failure_on_the_host_reaches_the_caller(tmp_path: Path) -> None:
    class Failing(CpuOps):
        def moe_add(self, *arguments: Any) -> None:
            raise MemoryError("no memory for scratch buffers")

    path = tiny_model("qwen3moe", tmp_path)
    with pytest.raises(MemoryError, match="scratch"):
        run(path, SplitOps(ReferenceOps(), Failing(1), none))
