"""Float32 logits of sequences side by side are those of each alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evaluation.float32 import float32_logits
from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from kernels.reference import ReferenceOps
from tests.support.tiny import tiny_model


@pytest.mark.parametrize(
    ("architecture", "variant"),
    [("llama", "mixtral"), ("deepseek2", "v3-split"), ("qwen35moe", "qwen35moe")],
)
def test_sequences_do_not_see_each_other(architecture: str, variant: str, models: Path) -> None:
    path = tiny_model(architecture, models, variant=variant)
    tokens = np.random.default_rng(0).integers(0, 250, (3, 40), np.int32)
    loaded: list[tuple[int, int]] = []
    computed: list[tuple[int, int]] = []
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        together = float32_logits(
            file,
            spec,
            tokens.tolist(),
            lambda *stage: loaded.append(stage),
            lambda *stage: computed.append(stage),
        )
        model: Transformer[Any, Any, Any] = Transformer(file, spec, ReferenceOps(), 2, 32)
        for row, logits in zip(tokens, together, strict=True):
            alone = model.forward_all(row, page_table([0, 1]), 0)
            np.testing.assert_allclose(logits, alone, rtol=1e-3, atol=1e-4)
    for stages in (loaded, computed):
        done = [done for done, _ in stages]
        assert done == sorted(done)
        assert stages[-1][0] == stages[-1][1]
    assert len(set(computed)) > 10
