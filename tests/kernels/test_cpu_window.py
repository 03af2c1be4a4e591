"""Windows, rings and attention sinks on the CPU, of every instruction set."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from kernels.ops import CacheShape, Floats
from tests.kernels.cpu_cases import ISAS, REFERENCE, cpu_ops, noise, normal, torch_copy
from tests.kernels.window_cases import CASES, check_copies, run, textbook

# Keys, values and weights are rounded to 14 bits.
ROUNDING = 1e-6


@cache
def wanted(case: str) -> Floats:
    return textbook(CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_the_reference_is_the_textbook(case: str) -> None:
    got = np.concatenate(run(REFERENCE, torch_copy, CASES[case]))
    assert noise(got, wanted(case)) < 1e-12


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES)
def test_windows_and_sinks(isa: str, case: str) -> None:
    got = np.concatenate(run(cpu_ops(2, isa), lambda x: x, CASES[case]))
    assert noise(got, wanted(case)) < ROUNDING


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", ["around the ring", "several ranges", "sinks without a window"])
def test_windows_and_sinks_in_8_bits(isa: str, case: str) -> None:
    got = np.concatenate(run(cpu_ops(2, isa), lambda x: x, CASES[case], "q8"))
    assert noise(got, wanted(case)) < 1.5e-4


@pytest.mark.parametrize(("window", "page_size"), [(1, 4), (2, 4), (5, 4), (8, 8), (128, 32)])
def test_a_copy_has_what_the_next_token_sees(window: int, page_size: int) -> None:
    check_copies(window, page_size)


def test_a_ring_that_is_too_short_is_refused() -> None:
    ops = cpu_ops()
    cache = ops.kv_cache(CacheShape(1, 3, 16, 2, 8, 8, ring=2))
    q, pages = normal(1, 20, 16), np.zeros(0, np.int32)
    ops.attention(q, 2, 1.0, cache, 0, pages, 100, 13)
    for tokens, window in ((20, 14), (20, 0), (20, -1), (33, 1)):
        with pytest.raises((ValueError, IndexError)):
            ops.attention(normal(1, tokens, 16), 2, 1.0, cache, 0, pages, 100, window)
    with pytest.raises(ValueError, match="a ring of 4"):
        CacheShape(1, 3, 16, 2, 8, 8, ring=4)
    with pytest.raises(ValueError, match="a ring of 2"):
        CacheShape(1, 3, 16, 1, 8, 0, ring=2)
