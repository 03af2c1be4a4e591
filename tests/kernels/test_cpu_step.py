"""One token as one native call says what the ops one by one say."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from kernels.cpu import CpuOps
from kernels.ops import Floats
from kernels.timing import Stamps
from tests.support.tiny import MODELS, tiny_model

PAGE_SIZE = 16
TABLES = [page_table([3, 1, 4, 0, 5]), page_table([2, 6, 7, 8, 9, 10])]
"""Two sequences in one cache, whose tables have different sizes; a recurrent state of theirs is in slot 1 or 2."""


def model(path: Path, ops: CpuOps) -> Transformer:
    file = GGUFFile.open(path)
    return Transformer(file, read_spec(file), ops, pages=11, page_size=PAGE_SIZE, slots=3)


def one_by_one(run: Transformer, repeated: bool) -> Floats:
    """Logits of two sequences whose tokens come in turns, over page edges."""
    forward = run.forward if repeated else lambda *place: run.forward_all(*place)[0]
    tokens = np.random.default_rng(3).integers(0, 250, (18, 2)).astype(np.int32)
    rows = []
    for at in range(len(tokens)):
        for which in (0, 1):
            run.load_state(1 + which, at)
            rows.append(forward(tokens[at, which : which + 1], TABLES[which], at))
            run.save_state(1 + which)
    return np.stack(rows)


@pytest.mark.parametrize(("architecture", "variant"), MODELS, ids=lambda name: name)
def test_a_repeated_token_equals_one_run_op_by_op(
    architecture: str, variant: str, tmp_path: Path
) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant)
    with_steps = one_by_one(model(path, CpuOps(2)), repeated=True)
    without = one_by_one(model(path, CpuOps(2)), repeated=False)
    assert np.array_equal(with_steps, without)


def test_what_a_step_returned_stays_as_it_was(tmp_path: Path) -> None:
    run = model(tiny_model("qwen3moe", tmp_path), CpuOps(2))
    tokens = np.array([5], dtype=np.int32)
    first = run.forward(tokens, TABLES[0], 0)
    second = run.forward(tokens, TABLES[0], 1)
    kept = first.copy(), second.copy()
    run.forward(tokens, TABLES[0], 2)
    assert np.array_equal(first, kept[0]) and np.array_equal(second, kept[1])


class Times:
    """Keeps what it is told, as (name, layer, start, end)."""

    def __init__(self) -> None:
        self.ops_told: list[tuple[str, int | None, int, int]] = []

    def ops(self, names: Sequence[str], layers: Sequence[int | None], stamps: Stamps) -> None:
        starts, ends = map(int, stamps[:-1]), map(int, stamps[1:])
        self.ops_told += zip(names, layers, starts, ends, strict=True)


@pytest.mark.parametrize("architecture", ["qwen3moe", "deepseek2"])
def test_a_step_tells_the_times_of_the_ops_that_python_would_call(
    architecture: str, tmp_path: Path
) -> None:
    ops = CpuOps(2)
    run = model(tiny_model(architecture, tmp_path), ops)
    token = np.array([5], dtype=np.int32)
    silent = [run.forward(token, TABLES[0], at) for at in range(3)]
    told = []
    for forward in (lambda *place: run.forward_all(*place)[0], run.forward):
        ops.times = times = Times()
        begin = time.perf_counter_ns()
        assert np.array_equal(forward(token, TABLES[0], 2), silent[2])
        done = time.perf_counter_ns()
        ops.times = None
        stamps = [begin, *(t for _, _, *both in times.ops_told for t in both), done]
        assert stamps == sorted(stamps)
        told.append([(name, layer) for name, layer, *_ in times.ops_told])
    run.forward(token, TABLES[0], 2)
    one_by_one, repeated = told
    assert one_by_one == repeated
    layers = [layer for _, layer in repeated if layer is not None]
    assert sorted(set(layers)) == list(range(run.spec.layers))
    assert len(repeated) > 6 * run.spec.layers


def test_a_wrong_token_or_page_is_refused_in_a_step_too(tmp_path: Path) -> None:
    run = model(tiny_model("qwen3moe", tmp_path), CpuOps(2))
    good = np.array([5], dtype=np.int32)
    run.forward(good, TABLES[0], 0)
    for tokens, table, start in (
        (np.array([1 << 20], dtype=np.int32), TABLES[0], 1),
        (good, page_table([3, 99]), PAGE_SIZE + 1),
        (good, TABLES[0], 5 * PAGE_SIZE),
        (good, TABLES[0], -1),
    ):
        with pytest.raises(IndexError):
            run.forward(tokens, table, start)
    assert np.isfinite(run.forward(good, TABLES[0], 1)).all()
