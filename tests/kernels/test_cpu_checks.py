"""What is refused before it reaches native code, and the choices made at the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.cpu import CpuOps, NativeError, build, cores, native
from kernels.ops import CacheShape, Rope, Routing, Tensor
from kernels.quants import BY_NAME
from tests.kernels.cpu_cases import cpu_ops, normal, tensor

EPS = 1e-6


def matrix(*shape: int, kind: str = "F32") -> Any:
    return cpu_ops().matrix(tensor(normal(1, *shape), kind))


def vector(size: int) -> Any:
    return cpu_ops().vector(tensor(normal(1, size)))


def floats(*shape: int) -> Any:
    return normal(2, *shape)


PAGES = np.arange(2, dtype=np.int32)
CACHE = cpu_ops().kv_cache(CacheShape(1, 2, 16, 2, 8, 8))
LATENT = cpu_ops().kv_cache(CacheShape(1, 2, 16, 1, 24, 0))
ROPE = Rope((1.0, 0.5), False)
LATENT_ROPE = Rope((1.0, 0.5, 0.2, 0.1), True, offset=8)


def attention(pages: Any = PAGES, start: int = 0, layer: int = 0, heads: int = 4) -> Any:
    return cpu_ops().attention(floats(3, heads * 8), heads, 0.1, CACHE, layer, pages, start)


def append(q: int = 32, k: int = 16, v: int = 16, rope: Rope = ROPE) -> Any:
    q_, k_, v_ = floats(3, q), floats(3, k), floats(3, v)
    return cpu_ops().rope_append(q_, k_, v_, None, EPS, rope, CACHE, 0, PAGES, 0)


def moe(ids: Any, width: int = 6, residual: Any = None) -> Any:
    residual = floats(2, 10) if residual is None else residual
    weights = matrix(4, 6, 10), matrix(4, 6, 10), matrix(4, 10, width)
    return cpu_ops().moe_add(floats(2, 10), ids, floats(2, 2), *weights, residual)


def ints(*rows: list[int]) -> Any:
    return np.array(rows, dtype=np.int32)


def linear(x: Any, weight: Any, bias: Any = None, norm: Any = None) -> Any:
    return cpu_ops().norm_linear(x, norm, EPS, [weight], None if bias is None else [bias])


def latent(heads: int, k_b: Any, v_b: Any) -> Any:
    q = floats(3, heads * 16)
    return cpu_ops().latent_attention(q, heads, 0.1, k_b, v_b, LATENT, 0, PAGES, 0)


def route(routing: Routing, bias: int = 4) -> Any:
    return cpu_ops().route(floats(1, 8), vector(8), EPS, matrix(4, 8), vector(bias), routing)


REFUSED: dict[str, Callable[[], Any]] = {
    "columns": lambda: linear(floats(2, 9), matrix(4, 8)),
    "dimensions": lambda: linear(floats(8), matrix(4, 8)),
    "no rows": lambda: linear(floats(0, 8), matrix(4, 8)),
    "float64": lambda: linear(floats(2, 8).astype(np.float64), matrix(4, 8)),
    "strides": lambda: linear(floats(2, 16)[:, ::2], matrix(4, 8)),
    "transposed": lambda: linear(floats(8, 8).T, matrix(4, 8)),
    "experts as a matrix": lambda: linear(floats(2, 8), matrix(1, 4, 8)),
    "vector as a matrix": lambda: linear(floats(2, 8), vector(8)),
    "matrix as a norm": lambda: linear(floats(2, 8), matrix(4, 8), norm=matrix(1, 8)),
    "norm": lambda: linear(floats(2, 8), matrix(4, 8), norm=vector(7)),
    "bias": lambda: linear(floats(2, 8), matrix(4, 8), vector(5)),
    "no weights": lambda: cpu_ops().norm_linear(floats(2, 8), None, EPS, []),
    "residual": lambda: cpu_ops().linear_add(floats(2, 8), matrix(4, 8), floats(2, 5)),
    "residual rows": lambda: cpu_ops().linear_add(floats(2, 8), matrix(4, 8), floats(3, 4)),
    "token": lambda: cpu_ops().embed(matrix(4, 8), np.array([4], np.int32)),
    "negative token": lambda: cpu_ops().embed(matrix(4, 8), np.array([-1], np.int32)),
    "no tokens": lambda: cpu_ops().embed(matrix(4, 8), np.zeros(0, np.int32)),
    "pages too few": lambda: attention(start=30),
    "page outside": lambda: attention(np.array([0, 2], np.int32), start=14),
    "negative page": lambda: attention(np.array([-1], np.int32)),
    "pages of int64": lambda: attention(np.arange(2)),
    "negative start": lambda: attention(start=-1),
    "layer": lambda: attention(layer=1),
    "heads": lambda: attention(heads=3),
    "attention over latents": lambda: cpu_ops().attention(
        floats(1, 24), 1, 0.1, LATENT, 0, PAGES, 0
    ),
    "q": lambda: append(q=30),
    "k": lambda: append(k=8),
    "v": lambda: append(v=32),
    "rope": lambda: append(rope=Rope((1.0,) * 5, False)),
    "rope offset": lambda: append(rope=Rope((1.0, 1.0), False, offset=6)),
    "expert": lambda: moe(ints([0, 1], [2, 4])),
    "negative expert": lambda: moe(ints([0, 1], [-2, 3])),
    "ids": lambda: moe(ints([0, 1, 2], [1, 2, 3])),
    "ids of int64": lambda: moe(np.zeros((2, 2), np.int64)),
    "down": lambda: moe(ints([0, 1], [2, 3]), width=7),
    "moe residual": lambda: moe(ints([0, 1], [2, 3]), residual=floats(2, 9)),
    "dense of several": lambda: cpu_ops().ffn_add(
        floats(2, 10), matrix(2, 6, 10), matrix(2, 6, 10), matrix(2, 10, 6), floats(2, 10)
    ),
    "latent heads": lambda: latent(3, matrix(2, 16, 8), matrix(2, 5, 16)),
    "latent v_b": lambda: latent(2, matrix(2, 16, 8), matrix(2, 5, 8)),
    "latent width": lambda: latent(2, matrix(2, 32, 8), matrix(2, 5, 32)),
    "top k": lambda: route(Routing(5)),
    "no groups fit": lambda: route(Routing(1, groups=3)),
    "too few in groups": lambda: route(Routing(3, groups=4, top_groups=2)),
    "router bias": lambda: route(Routing(2), bias=5),
    "empty cache": lambda: cpu_ops().kv_cache(CacheShape(1, 0, 16, 1, 8, 8)),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_wrong_shapes_and_numbers_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, IndexError)):
        call()


def test_what_the_refusals_vary_is_accepted() -> None:
    linear(floats(2, 8), matrix(4, 8), vector(4), vector(8))
    append()
    attention()
    moe(ints([0, 1], [2, 3]))
    route(Routing(2, groups=2, top_groups=1))
    q, kv = floats(3, 32), floats(3, 24)
    cpu_ops().latent_append(q, 2, kv, vector(16), EPS, LATENT_ROPE, LATENT, 0, PAGES, 0)
    assert latent(2, matrix(2, 16, 8), matrix(2, 5, 16)).shape == (3, 10)


@pytest.mark.parametrize("change", ["short", "long", "type", "block", "dimensions", "items"])
def test_matrix_refuses_tensors_that_lie(change: str) -> None:
    good = tensor(normal(1, 4, 64), "Q8_0")
    type_, shape, data = good.type, good.shape, good.data
    if change == "short":
        data = data[:-1]
    elif change == "long":
        data = np.append(data, np.uint8(0))
    elif change == "type":
        type_, data = BY_NAME["F64"], np.zeros(4 * 64 * 8, np.uint8)
    elif change == "block":
        shape = (4, 65)
    elif change == "dimensions":
        shape = (256,)
    else:
        data = data[::-1]
    with pytest.raises(ValueError):
        cpu_ops().matrix(Tensor("bad", type_, shape, data))


def test_a_closed_instance_says_so() -> None:
    ops = CpuOps(1)
    ops.close()
    with pytest.raises(ValueError, match="closed"):
        ops.norm(floats(1, 8), vector(8), EPS)


def test_weights_outlive_the_array_they_came_from() -> None:
    ops = cpu_ops()
    values = normal(1, 300, 64)
    weight = ops.matrix(
        Tensor("w", BY_NAME["F32"], values.shape, values.copy().view(np.uint8).reshape(-1))
    )
    (got,) = ops.norm_linear(floats(1, 64), None, EPS, [weight])
    np.testing.assert_allclose(got, floats(1, 64) @ values.T, atol=1e-4)


@pytest.mark.parametrize("isa", native.supported_isas())
def test_isa_is_what_the_environment_names(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTCHAT_ISA", isa)
    ops = CpuOps(1)
    assert ops.isa == isa
    ops.close()


def test_an_unknown_isa_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTCHAT_ISA", "avx9")
    with pytest.raises(NativeError, match="avx9"):
        CpuOps(1)


@pytest.mark.parametrize("isa", native.supported_isas())
def test_softmax_is_accurate(isa: str) -> None:
    x = np.concatenate([np.linspace(-104, 0, 4001), [-1e30, -np.inf]]).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    exact /= exact.sum()
    ops = cpu_ops(2, isa)
    native.load().kt_softmax(ops._context, x.ctypes.data, x.size)
    normal_range = exact > 2e-38
    assert (np.abs(x - exact)[normal_range] <= 5e-7 * exact[normal_range]).all()
    assert (np.abs(x - exact)[~normal_range] <= 3e-45).all()


def test_threads_never_exceed_the_cores_of_this_process() -> None:
    assert 1 <= cores.default_threads() <= len(cores.physical_cores())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 cores that the tests describe by files; its cgroup is /a/b."""
    (tmp_path / "self").write_text("0::/a/b\n")
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr(cores, "_CPUS", tmp_path)
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(cores, "_EFFICIENCY_CORES", tmp_path / "slow")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


@pytest.mark.parametrize(
    ("limits", "threads"),
    [
        ({".": "350000 100000"}, 3),
        ({"a/b": "50000 100000"}, 1),
        ({"a/b": "max 100000", "a": "250000 100000", ".": "600000 100000"}, 2),
        ({"a/b": "max 100000"}, 8),
        ({"a/other": "100000 100000"}, 8),
    ],
)
def test_threads_respect_the_quotas_of_a_cgroup_and_its_parents(
    limits: dict[str, str], threads: int, machine: Path
) -> None:
    for place, limit in limits.items():
        (machine / place).mkdir(parents=True, exist_ok=True)
        (machine / place / "cpu.max").write_text(limit + "\n")
    assert cores.default_threads() == threads
    assert cores.default_threads(coordinators=1) == max(1, threads - 1)


def test_threads_respect_quotas_of_cgroups_version_1(machine: Path) -> None:
    (machine / "self").write_text("3:memory:/m\n2:cpu,cpuacct:/docker/x\n0::/\n")
    folder = machine / "cpu" / "docker" / "x"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("500000")
    (folder / "cpu.cfs_period_us").write_text("100000")
    assert cores.default_threads() == 5
    (machine / "self").write_text("2:cpu,cpuacct:/../..\n")
    assert cores.default_threads() == 8
    (machine / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    (machine / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cores.default_threads() == 8


def test_performance_cores_come_before_efficiency_cores(machine: Path) -> None:
    for cpu in range(8):
        (machine / f"cpu{cpu}" / "topology").mkdir(parents=True)
        pair = f"{cpu - cpu % 2}-{cpu - cpu % 2 + 1}" if cpu >= 4 else str(cpu)
        (machine / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(pair + "\n")
    assert cores.physical_cores() == [0, 1, 2, 3, 4, 6]
    (machine / "slow").write_text("0-1,3\n")
    assert cores.physical_cores() == [2, 4, 6, 0, 1, 3]
    (machine / "slow").write_text("\n")
    assert cores.physical_cores() == [0, 1, 2, 3, 4, 6]


def test_an_unchanged_build_runs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    path = build.build()
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.build() == path
    assert path.stat().st_mtime_ns == before


def test_a_missing_compiler_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(build, "_OUTPUT", tmp_path)
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.build()


def test_a_source_with_errors_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, output = tmp_path / "src", tmp_path / "lib"
    sources.mkdir()
    (sources / "api.cpp").write_text("int broken( {}")
    monkeypatch.setattr(build, "_SOURCE", sources)
    monkeypatch.setattr(build, "_OUTPUT", output)
    with pytest.raises(build.BuildError, match=r"api\.cpp"):
        build.build()
    assert not build.library_path().exists()
