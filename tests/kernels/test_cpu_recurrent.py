"""The gated delta net and the sigmoid gate against the oracle in float64 and float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from kernels.recurrent import DeltaNet
from tests.kernels.cpu_cases import ISAS, cpu_ops, normal, relative_error
from tests.kernels.recurrent_cases import (
    CLOSE,
    NETS,
    QWEN3_NEXT,
    QWEN36,
    SMALL,
    Case,
    Result,
    assert_close,
    random_case,
    run,
    shared,
    wanted,
)

# ---- against the oracle -------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("n", [1, 2, 6, 7, 8, 31, 33, 63, 64, 65, 129])
def test_delta_net(isa: str, name: str, n: int) -> None:
    case, right, in_float32 = shared(name, n)
    got = run(cpu_ops(2, isa), case, [n])
    if NETS[name].kernel == 1:
        got, right = got._replace(conv=np.empty(0)), right._replace(conv=np.empty(0))
        in_float32 = in_float32._replace(conv=np.empty(0))
    assert_close(got, right)
    assert_close(got, in_float32)


@pytest.mark.parametrize("isa", ISAS)
def test_a_long_prompt(isa: str) -> None:
    case, right, in_float32 = shared("small", 512)
    got = run(cpu_ops(2, isa), case, [512])
    assert_close(got, right)
    assert_close(got, in_float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["small", "odd", "of its sizes"])
def test_a_prompt_at_once_equals_its_tokens_one_by_one(isa: str, name: str) -> None:
    case, right, _ = shared(name, 200)
    at_once, one_by_one = run(cpu_ops(2, isa), case, [200]), run(cpu_ops(2, isa), case, [1] * 200)
    assert_close(at_once, one_by_one)
    assert_close(one_by_one, right)


@pytest.mark.parametrize("net", [QWEN36, QWEN3_NEXT], ids=["tiled", "not tiled"])
def test_the_sizes_of_real_models(net: DeltaNet) -> None:
    case = random_case(net, 75)
    assert_close(run(cpu_ops(2), case, [70, 1, 4]), wanted(case))


# ---- numbers at the edges -----------------------------------------------------------------------


def constant_decay(log: float) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        a = np.full(case.net.value_heads, log / np.log(2), np.float32)
        zeros = np.zeros_like(case.vectors.dt)
        inputs = case.inputs._replace(alpha=np.zeros_like(case.inputs.alpha))
        return case._replace(inputs=inputs, vectors=case.vectors._replace(a=a, dt=zeros))

    return change


def mixed_decays(case: Case) -> Case:
    """Some tokens forget all, those between them almost nothing."""
    alpha = np.full_like(case.inputs.alpha, -14.0)
    alpha[::11] = 50.0
    a = np.full(case.net.value_heads, -1, np.float32)
    return case._replace(
        inputs=case.inputs._replace(alpha=alpha),
        vectors=case.vectors._replace(a=a, dt=np.zeros_like(case.vectors.dt)),
    )


def rates(beta: float) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        values = np.full_like(case.inputs.beta, beta)
        values[::7] *= -1  # else nothing is ever learnt, or all at once
        return case._replace(inputs=case.inputs._replace(beta=values))

    return change


def without(first: int, tokens: slice) -> Callable[[Case], Case]:
    """Queries (0) or keys (1) of these tokens are zero."""

    def change(case: Case) -> Case:
        features = case.net.key_heads * case.net.key
        qkv = case.inputs.qkv.copy()
        qkv[tokens, first * features : (first + 1) * features] = 0
        return case._replace(inputs=case.inputs._replace(qkv=qkv))

    return change


def scaled(factor: float) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        inputs = case.inputs
        return case._replace(
            inputs=inputs._replace(qkv=inputs.qkv * np.float32(factor), z=inputs.z * np.float32(9))
        )

    return change


def same_keys(case: Case) -> Case:
    """Every token has the same key, which is learnt at the full rate and never forgotten."""
    features = case.net.key_heads * case.net.key
    qkv = case.inputs.qkv.copy()
    qkv[:, features : 2 * features] = qkv[0, features : 2 * features]
    changed = case._replace(inputs=case.inputs._replace(qkv=qkv, beta=case.inputs.beta * 0 + 30))
    return constant_decay(-1e-6)(changed)


EDGES: dict[str, Callable[[Case], Case]] = {
    "all is forgotten": constant_decay(-50.0),
    "nothing is forgotten": constant_decay(-1e-6),
    "half is forgotten": constant_decay(-0.69),
    "both": mixed_decays,
    "rates near 1": rates(25.0),
    "rates near 0": rates(-25.0),
    "no queries": without(0, slice(None)),
    "no keys": without(1, slice(None)),
    "queries missing": without(0, slice(10, 50)),
    "keys missing": without(1, slice(10, 50)),
    "large": scaled(1e5),
    "small": scaled(1e-4),
    "same keys": same_keys,
}


@cache
def edge(name: str) -> tuple[Case, Result]:
    case = EDGES[name](random_case(SMALL, 150, seed=20))
    return case, wanted(case)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", EDGES)
def test_numbers_at_the_edges(isa: str, name: str) -> None:
    case, right = edge(name)
    for counts in ([150], [1] * 150, [100, 3, 47]):
        got = run(cpu_ops(2, isa), case, counts)
        np.testing.assert_array_equal(got.conv, right.conv)
        for ours, theirs in zip(got, right, strict=True):
            assert np.isfinite(ours).all()
            if theirs.any():
                assert relative_error(ours, theirs) < CLOSE
            else:
                assert not ours.any()


@cache
def many_tokens(name: str | None) -> tuple[Case, Result, float]:
    """And what float32 makes of them: a state whose errors nothing overwrites gathers more than 2e-6."""
    case = random_case(SMALL, 2000, seed=40)
    if name is not None:
        case = EDGES[name](case)
    right, in_float32 = wanted(case), wanted(case, torch.float32)
    pairs = zip(in_float32, right, strict=True)
    return case, right, max(relative_error(*pair) for pair in pairs)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [None, "nothing is forgotten", "both", "same keys"])
def test_two_thousand_tokens_in_passes_of_many_sizes(isa: str, name: str | None) -> None:
    case, right, of_float32 = many_tokens(name)
    counts = [1, 2, 63, 64, 65, 512, 1, 1, 5, 6, 7, 9, 33, 300, 512]
    counts += [1] * 40
    counts += [2000 - sum(counts)]
    got = run(cpu_ops(2, isa), case, counts)
    assert_close(got, right, max(CLOSE, of_float32) if name == "same keys" else CLOSE)


# ---- threads and instruction sets ---------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_results_do_not_depend_on_threads(isa: str) -> None:
    case, _, _ = shared("small", 200)
    counts = [100, 1, 1, 5, 93]
    first = run(cpu_ops(1, isa), case, counts)
    for threads in (1, 2, 3):
        for ours, theirs in zip(run(cpu_ops(threads, isa), case, counts), first, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(1, 4096), (3, 5), (1, 1), (7, 1001)])
def test_sigmoid_gate(isa: str, shape: tuple[int, int]) -> None:
    x, gate = normal(1, *shape), normal(2, *shape, scale=20)
    right = x.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64)))
    cpu_ops(2, isa).sigmoid_gate(x, gate)
    np.testing.assert_allclose(x, right, rtol=1e-6, atol=1e-37)
