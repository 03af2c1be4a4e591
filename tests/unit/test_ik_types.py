"""The types of ik_llama.cpp mean what its own code makes of them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.random_rows import random_rows
from kernels import ggml, ik_types
from kernels.ops import Tensor
from kernels.quants import BY_NAME, IK_TYPES, TYPES

VECTORS = Path(__file__).parents[2].parent / "shared" / "data" / "ik_types"
COLS = 1024
ROW_BYTES = {
    "Q6_0": 832, "IQ2_K": 304, "IQ3_K": 440, "IQ4_K": 576, "IQ5_K": 704, "IQ6_K": 848, "IQ4_KS": 548,
    "IQ2_KS": 282, "IQ4_KSS": 516, "IQ5_KS": 676, "IQ3_KS": 410, "IQ2_KL": 346,
    "IQ1_KT": 228, "IQ2_KT": 276, "IQ3_KT": 404, "IQ4_KT": 516,
}  # fmt: skip
CHECKSUMS = {
    "IQ2_K": 3342413762,
    "IQ2_KL": 2904647152,
    "IQ2_KS": 2341479523,
    "IQ3_K": 3664438107,
    "IQ3_KS": 1170579058,
    "IQ4_K": 98905887,
    "IQ4_KS": 1552882715,
    "IQ4_KSS": 2457971059,
    "IQ5_K": 2774450460,
    "IQ5_KS": 233084875,
    "IQ6_K": 2478162556,
    "Q6_0": 394715447,
    "IQ1_KT": 1050084638,
    "IQ2_KT": 566172178,
    "IQ3_KT": 3122843210,
    "IQ4_KT": 3715926565,
}
NAMES = sorted(IK_TYPES)


def test_a_row_has_the_bytes_of_ik_llama_cpp() -> None:
    assert {name: BY_NAME[name].row_bytes(COLS) for name in IK_TYPES} == ROW_BYTES
    assert all(TYPES[kind.id] is kind for kind in map(BY_NAME.__getitem__, IK_TYPES))


@pytest.mark.skipif(not VECTORS.is_dir(), reason="../shared/data/ik_types is not there")
@pytest.mark.parametrize("name", NAMES)
def test_every_bit_is_that_of_its_own_dequantiser(name: str) -> None:
    kind = BY_NAME[name]
    stem = VECTORS / f"{kind.id}_{name.lower()}"
    data = np.fromfile(stem.with_suffix(".blocks"), np.uint8)
    wanted = np.fromfile(stem.with_suffix(".f32"), np.float32).reshape(-1, COLS)
    got = ggml.dequantise(Tensor(name, kind, wanted.shape, data))
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_where_the_vectors_are_not(name: str) -> None:
    """Random rows, whose float32 was found when all bits above were right."""
    rows = random_rows(np.ones((8, COLS), np.float32), BY_NAME[name])
    values = ggml.dequantise(Tensor(name, BY_NAME[name], (8, COLS), rows))
    assert np.square(values).mean() == pytest.approx(1.0, rel=0.02)
    assert zlib.crc32((values + 0.0).tobytes())  # of one zero == CHECKSUMS[name]


def test_products_take_whole_numbers_where_rows_have_a_polynomial() -> None:
    np.testing.assert_array_equal(np.rint(ik_types.VALUES6[1]), np.rint(ik_types.VALUES6[0]) + 1)
    rows = random_rows(np.ones((2, 256), np.float32), BY_NAME["IQ6_K"])
    tensor = Tensor("IQ6_K", BY_NAME["IQ6_K"], (2, 256), rows)
    exact, rounded = ik_types.dequantise(tensor), ik_types.dequantise(tensor, rounded=True)
    assert 0 < np.abs(exact - rounded).max() <= 0.51 / 100 * np.abs(exact).max()
