"""Experts in slots, experts that pass through: the same sums as with all of them on the device."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from kernels.device import Copy, DeviceMemoryError, StreamedLayer
from kernels.gpu import sizes
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.memory.staging import Staging
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.memory.weight_store import WeightStore
from kernels.gpu.moe.streaming import Chosen, ExpertStream
from kernels.gpu.quant import matmul
from kernels.gpu.quant.formats import FORMATS
from kernels.gpu.quant.gemv import GEMV_MAX_ROWS
from kernels.gpu.sizes import STREAM_BUFFERS, expert_bytes, experts_at_once, stream_bytes
from kernels.ops import Ints, Tensor
from kernels.quants import BY_NAME
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU, error, normal
from tests.kernels.gpu.quantised_cases import random_tensor, repack
from tests.kernels.gpu.test_staging import FakeStream

EXPERTS, TOP_K = 7, 3
EXACT, IN_8_BITS, ROUNDED = 1e-5, 3e-2, 2e-3
"""Largest error of float32 sums, of few rows' inputs in 8 bits (1.0e-2 measured), and of inputs in float16, over
the largest sum."""

Stacks = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few programs for the interpreter."""
    if not ON_GPU:
        monkeypatch.setattr(matmul, "_GEMM_ROWS", 256)


@pytest.fixture
def ops() -> Iterator[GpuOps]:
    made = GpuOps(DEVICE)
    yield made
    made.close()


def stacks(gate: str, down: str, hidden: int, features: int) -> Stacks:
    shapes = (EXPERTS, features, hidden), (EXPERTS, hidden, features)
    first, second = random_tensor(gate, shapes[0]), random_tensor(gate, shapes[0], seed=1)
    return first, second, random_tensor(down, shapes[1])


SHAPES = {
    "Q4_K": stacks("Q4_K", "Q6_K", 256, 256),
    "Q8_0": stacks("Q8_0", "Q8_0", 96, 160),
    "F16": stacks("F16", "F32", 37, 41),
}


def chosen_of(n: int, experts: list[int], seed: int = 0) -> Ints:
    """Ids (n, top_k), different in a row, of these experts; -1 where there are too few."""
    rng = np.random.default_rng(seed)
    ids = np.full((n, TOP_K), -1, np.int32)
    for row in ids:
        some = rng.permutation(experts)[:TOP_K]
        row[rng.permutation(TOP_K)[: len(some)]] = some
    return ids


def bound_of(tensors: Stacks, n: int) -> float:
    """How far off sums of n rows may be."""
    if n > GEMV_MAX_ROWS:
        return ROUNDED
    return IN_8_BITS if any(FORMATS[tensor.type.name].dot for tensor in tensors) else EXACT


def wanted(x: Any, ids: Ints, weights: Any, tensors: Stacks, residual: Any) -> Any:
    """The reference's sums; it leaves out ids of -1."""
    ops, out = ReferenceOps(), residual.cpu().clone()
    known = torch.from_numpy(ids)
    ops.moe_add(x.cpu(), known, weights.cpu(), *(ops.matrix(t) for t in tensors), out)
    return out


def case(tensors: Stacks, n: int) -> tuple[Any, Any, Any]:
    hidden = tensors[0].cols
    return normal(1, n, hidden, scale=0.03), normal(2, n, TOP_K).abs(), normal(3, n, hidden)


# ---- slots -----------------------------------------------------------------------------------------


def fill(
    ops: GpuOps, slots: list[Any], tensors: tuple[Tensor, ...], places: dict[int, int]
) -> None:
    """Experts into slots, waited for."""
    done = ops.upload(
        [
            Copy(weights, slot, tensor, expert)
            for slot, expert in places.items()
            for weights, tensor in zip(slots, tensors, strict=True)
        ]
    )
    while not done():
        pass


@pytest.mark.parametrize(
    ("name", "n"), [("Q4_K", 1), ("Q4_K", 11), ("Q8_0", 4), ("F16", 1), ("F16", 11)]
)
def test_experts_in_slots_compute_what_they_are(name: str, n: int, ops: GpuOps) -> None:
    tensors = SHAPES[name]
    slots = [ops.expert_slots(tensor, 3) for tensor in tensors]
    fill(ops, slots, tensors, {0: 5, 1: 1, 2: 6})
    fill(ops, slots, tensors, {1: 2})  # in the place of another
    x, weights, residual = case(tensors, n)
    ids = chosen_of(n, [5, 2, 6])
    ids[0, 0] = -1
    places = np.select([ids == 5, ids == 2, ids == 6], [0, 1, 2], -1).astype(np.int32)
    out = residual.clone()
    ops.moe_add(x, ops.from_numpy(places), weights, *slots, out)
    assert error(out, wanted(x, ids, weights, tensors, residual)) < bound_of(tensors, n)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("n", [1, 11])
def test_biases_and_the_clamped_activation(n: int, ops: GpuOps) -> None:
    """In slots, whole, and streamed: the same sums."""
    tensors = SHAPES["Q8_0"]
    added = tuple(bias(tensor, seed) for seed, tensor in enumerate(tensors))
    x, weights, residual = case(tensors, n)
    x, ids = 10 * x, chosen_of(n, [5, 2, 6])
    ids[0, 0] = -1
    reference, right = ReferenceOps(), residual.cpu().clone()
    parts = [[reference.matrix(t) for t in some] for some in (tensors, added)]
    known = x.cpu(), torch.from_numpy(ids), weights.cpu()
    reference.moe_add(*known, *parts[0], right, tuple(parts[1]), "clamped swiglu")
    bound = bound_of(tensors, n)
    places = np.select([ids == 5, ids == 2, ids == 6], [0, 1, 2], -1).astype(np.int32)
    slots = [ops.expert_slots(tensor, 3) for tensor in (*tensors, *added)]
    fill(ops, slots, (*tensors, *added), {0: 5, 1: 2, 2: 6})
    whole = [ops.matrix(tensor) for tensor in (*tensors, *added)]
    for chosen, made in ((places, slots), (ids, whole)):
        out = residual.clone()
        biases = tuple(made[3:])
        ops.moe_add(x, ops.from_numpy(chosen), weights, *made[:3], out, biases, "clamped swiglu")
        assert error(out, right) < bound
    out = residual.clone()
    ops.stream_moe_add(x, ops.from_numpy(ids), weights, *tensors, out, added, "clamped swiglu")
    assert error(out, right) < bound


def bias(stack: Tensor, seed: int) -> Tensor:
    """A vector for each expert of a stack."""
    values = normal(seed, stack.shape[0], 1, stack.shape[1]).cpu().numpy()
    return Tensor(f"{stack.name}.bias", BY_NAME["F32"], values.shape, values.view(np.uint8).ravel())


@pytest.mark.parametrize("n", [1, 11])
def test_nobody_is_here(n: int, ops: GpuOps) -> None:
    tensors = SHAPES["Q8_0"]
    slots = [ops.expert_slots(tensor, 2) for tensor in tensors]
    x, weights, residual = case(tensors, n)
    out = residual.clone()
    ops.moe_add(x, ops.from_numpy(np.full((n, TOP_K), -1, np.int32)), weights, *slots, out)
    assert torch.equal(out, residual)


def test_what_does_not_fit_a_slot_is_refused(ops: GpuOps) -> None:
    gate, _, down = SHAPES["Q4_K"]
    slots = ops.expert_slots(gate, 2)
    with pytest.raises(ValueError, match="does not fit slots of Q4_K"):
        ops.upload([Copy(slots, 0, down, 0)])
    for slot, expert in ((2, 0), (-1, 0), (0, EXPERTS)):
        with pytest.raises(ValueError, match=f"expert {expert} .* slot {slot}"):
            ops.upload([Copy(slots, slot, gate, expert)])


def uploading(stream: FakeStream) -> tuple[WeightStore, Tensor]:
    """A store that uploads as it does on a GPU, in a thread, over a simulated stream."""
    allocator, tensor = TrackedAllocator(torch.device("cpu")), SHAPES["Q4_K"][0]
    store = WeightStore(allocator)
    store._staging = Staging(allocator, 1 << 20, stream)
    store._uploader = ThreadPoolExecutor(1)
    return store, tensor


@pytest.mark.skipif(ON_GPU, reason="a simulated stream")
def test_an_upload_is_done_when_the_device_says_so() -> None:
    stream = FakeStream()
    store, tensor = uploading(stream)
    slots = store.slots(tensor, 1)
    done = store.upload([Copy(slots, 0, tensor, 3)])
    store.close()  # all is sent
    assert not done()
    stream.marks[-1].reached = True
    assert done()


@pytest.mark.skipif(ON_GPU, reason="a simulated stream")
def test_an_upload_comes_after_the_ops_before_it_and_never_waits() -> None:
    stream = FakeStream()
    store, tensor = uploading(stream)
    slots = store.slots(tensor, 2)
    stream.log.clear()
    before = len(stream.marks)
    store.upload([Copy(slots, 0, tensor, 3), Copy(slots, 1, tensor, 4)])
    store.close()
    assert stream.log == [f"after {before}"]
    assert len(stream.marks) == before + 3  # before, behind one block for both, behind all


@pytest.mark.skipif(ON_GPU, reason="a simulated stream")
def test_a_failed_upload_says_why() -> None:
    store, tensor = uploading(FakeStream())
    slots = store.slots(tensor, 1)

    def fail(blocks: Any) -> None:
        raise OSError("the disk is gone")

    store.staging.send = fail  # type: ignore[method-assign]
    done = store.upload([Copy(slots, 0, tensor, 3)])
    store.close()
    with pytest.raises(OSError, match="the disk is gone"):
        done()


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs KTCHAT_GPU_TESTS=1 and a CUDA device")
def test_an_upload_is_asked_for_while_the_device_works(ops: GpuOps) -> None:
    tensor = SHAPES["Q4_K"][0]
    slots: Any = ops.expert_slots(tensor, 1)
    fill(ops, [slots], (tensor,), {0: 1})  # compiles
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # a second or so
    done = ops.upload([Copy(slots, 0, tensor, 3)])
    assert not done()
    torch.cuda.synchronize()
    while not done():
        pass
    assert torch.equal(slots.data[0], repack(tensor, DEVICE).data[3])


# ---- experts that pass through -----------------------------------------------------------------------


def at_once(monkeypatch: pytest.MonkeyPatch, tensors: Stacks, experts: int) -> None:
    kinds = [(tensor.type, tensor.shape) for tensor in tensors]
    monkeypatch.setattr(sizes, "STREAM_BUFFER", experts * expert_bytes(kinds))
    assert experts_at_once(kinds) == experts


USED = {"all": list(range(EXPERTS)), "some": [0, 3, 4, 6], "one": [5], "none": []}


@pytest.mark.parametrize(
    ("name", "n", "used"),
    [
        *(("Q4_K", 12, "some"), ("Q8_0", 40, "some"), ("F16", 9, "all"), ("Q8_0", 2, "some")),
        *(("Q8_0", 9, "one"), ("Q8_0", 9, "none"), ("Q4_K", 3, "none")),
    ],
)
def test_streamed_experts_compute_what_resident_ones_do(
    name: str, n: int, used: str, ops: GpuOps, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = SHAPES[name]
    at_once(monkeypatch, tensors, 2)
    x, weights, residual = case(tensors, n)
    ids = chosen_of(n, USED[used])
    out = residual.clone()
    ops.stream_moe_add(x, ops.from_numpy(ids), weights, *tensors, out)
    if used == "none":
        assert torch.equal(out, residual)
    else:
        assert error(out, wanted(x, ids, weights, tensors, residual)) < bound_of(tensors, n)
    resident = residual.clone()
    ops.moe_add(x, ops.from_numpy(ids), weights, *(ops.matrix(t) for t in tensors), resident)
    assert error(out, resident) < 1e-6


def test_layers_of_all_kinds_share_the_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one kind leaves in a buffer is nothing to the next, which may need larger ones."""
    ops = GpuOps(DEVICE, limit=1 << 30)
    for tensors in (SHAPES["Q8_0"], SHAPES["Q4_K"], SHAPES["F16"]):
        monkeypatch.setattr(sizes, "STREAM_BUFFER", 1 << 10)  # an expert is larger
        x, weights, residual = case(tensors, 10)
        ids, out = chosen_of(10, [1, 3, 4]), residual.clone()
        ops.stream_moe_add(x, ops.from_numpy(ids), weights, *tensors, out)
        assert error(out, wanted(x, ids, weights, tensors, residual)) < ROUNDED
    kinds = [[(tensor.type, tensor.shape) for tensor in shape] for shape in SHAPES.values()]
    assert (1 << 30) - ops.memory().free == stream_bytes(kinds) + sizes.BLOCK_BYTES
    ops.close()


def test_no_room_for_the_buffers_is_said() -> None:
    ops = GpuOps(DEVICE, limit=sizes.STREAM_BUFFER)
    x, weights, residual = case(SHAPES["Q8_0"], 9)
    with pytest.raises(DeviceMemoryError, match="bytes wanted"):
        ops.stream_moe_add(x, ops.from_numpy(chosen_of(9, [1])), weights, *SHAPES["Q8_0"], residual)
    ops.close()


@pytest.mark.skipif(ON_GPU, reason="a simulated stream")
def test_a_buffer_waits_for_the_products_that_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And copies run ahead: the next layer's are asked for before anyone knows whom it chooses."""
    first, second = SHAPES["Q8_0"], stacks("Q8_0", "Q8_0", 96, 160)
    at_once(monkeypatch, first, 2)
    stream = FakeStream()
    allocator = TrackedAllocator(torch.device("cpu"))
    store = WeightStore(allocator)
    store._staging = Staging(allocator, 1 << 20, stream)
    streaming = ExpertStream(allocator, store)
    x, weights, residual = case(first, 9)
    ids = torch.from_numpy(chosen_of(9, USED["all"]))
    log: list[str] = []
    products, fill = matmul.scattered_gemm, buffered(streaming, monkeypatch, log)

    def last_product(*args: Any) -> None:
        products(*args)
        log.append(f"product before {len(stream.marks)}")  # the next mark is behind it

    monkeypatch.setattr(matmul, "scattered_gemm", last_product)
    streaming.begin([StreamedLayer(tensors, range(EXPERTS)) for tensors in (first, second)])
    assert log == ["fill 0"] * STREAM_BUFFERS, "buffers are filled before a router has chosen"
    streaming.moe_add(x, ids, weights, first, residual)
    assert log.count("fill 1") == STREAM_BUFFERS, "the next layer's are on their way"
    streaming.moe_add(x, ids, weights, second, residual)
    assert len([line for line in log if line.startswith("fill")]) == 8 == fill()
    reads = [int(line.split()[-1]) for line in log if line.startswith("product")]
    after = [int(line.split()[-1]) for line in stream.log if line.startswith("after")]
    assert after[-4:] == reads[:4], "each fill waits for the product that read its buffer"
    store.close()


def buffered(streaming: ExpertStream, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> Any:
    """Writes down whose buffers are filled; the result says how many were."""
    make, count = streaming._fill_of, [0]

    def watched(*args: Any) -> Any:
        inner = make(*args)

        def fill(number: int, *rest: Any) -> Any:
            log.append(f"fill {number}")
            count[0] += 1
            return inner(number, *rest)

        return fill

    monkeypatch.setattr(streaming, "_fill_of", watched)
    return lambda: count[0]


def test_what_nobody_chose_is_not_fetched_once_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensors = SHAPES["Q8_0"]
    at_once(monkeypatch, tensors, 1)
    ops = GpuOps(DEVICE)
    log: list[str] = []
    fills = buffered(ops._stream, monkeypatch, log)
    x, weights, residual = case(tensors, 12)
    ids = chosen_of(12, [0, 6])
    for _ in range(2):
        out = residual.clone()
        ops.stream([StreamedLayer(tensors, [3, 6, 5, 4, 2, 1, 0])])
        ops.stream_moe_add(x, ops.from_numpy(ids), weights, *tensors, out)
        assert error(out, wanted(x, ids, weights, tensors, residual)) < ROUNDED
    assert fills() == 2 * (STREAM_BUFFERS + 1)  # 3, 6, 5 and 4 ahead, then 0
    ops.stream([StreamedLayer(tensors, [0])])
    with pytest.raises(ValueError, match="not fetched"):
        ops.stream_moe_add(x, ops.from_numpy(ids), weights, *tensors, out)
    ops.close()


def test_parts_serve_every_pair_once() -> None:
    for n, experts, few in ((1, 3, 1), (50, EXPERTS, 2), (200, 2, 5), (600, EXPERTS, 3)):
        ids = chosen_of(n, list(range(experts)), seed=n)
        chosen, seen = Chosen.of(ids), []
        for first in range(0, EXPERTS, few):
            part = range(first, min(first + few, EXPERTS))[::-1]
            order, tiles = chosen.groups(part)
            members: list[int] = []
            for slot, begin, end in tiles.tolist():
                assert 0 < end - begin <= chosen.size
                pairs = order[begin:end].tolist()
                assert all(ids.reshape(-1)[pair] == part[slot] for pair in pairs)
                members += pairs
            assert sorted(members) == sorted(order.tolist())
            assert np.array_equal(chosen.slots(part) >= 0, np.isin(ids, part))
            seen += members
        assert sorted(seen) == np.flatnonzero(ids.reshape(-1) >= 0).tolist()
    assert not len(Chosen.of(np.full((3, 2), -1, np.int32)).used)


def test_stream_bytes_are_bounded_or_one_expert() -> None:
    small = [(tensor.type, tensor.shape) for tensor in SHAPES["Q4_K"]]
    large = [(small[0][0], (8, 8192, 32768))] * 3
    assert stream_bytes([small]) == STREAM_BUFFERS * sizes.STREAM_BUFFER
    assert stream_bytes([small, large]) == STREAM_BUFFERS * expert_bytes(large)
    assert experts_at_once(large) == 1
