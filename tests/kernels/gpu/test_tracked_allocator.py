"""What an op set holds on its device is counted, and refused where there is no room."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.device import DeviceMemory, DeviceMemoryError
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.quant.weight import packed_bytes
from kernels.gpu.sizes import BLOCK_BYTES
from kernels.ops import CacheShape, Tensor
from kernels.quants import BY_NAME
from tests.kernels.gpu.gpu_cases import DEVICE
from tests.kernels.gpu.quantised_cases import random_tensor


def test_what_exists_is_counted() -> None:
    allocator = TrackedAllocator(torch.device(DEVICE), limit=1000)
    first, second = allocator.empty(600), allocator.empty(300)
    assert allocator.held == 900 and allocator.memory().free == 100
    part = first[10:20]
    del first
    assert allocator.held == 900, "a view still holds it"
    del part
    assert allocator.held == 300
    assert allocator.memory().free == 700 and allocator.memory().total == 1000
    del second
    assert allocator.held == 0


def test_a_refusal_says_how_much_was_wanted_and_is_free() -> None:
    allocator = TrackedAllocator(torch.device(DEVICE), limit=5000)
    kept = allocator.empty(3500)
    with pytest.raises(DeviceMemoryError, match=r"2,000 bytes wanted on .*, 1,500 are free"):
        allocator.empty(2000)
    assert len(allocator.empty(1500)) == 1500, "what fits exactly is not refused"
    assert allocator.held == kept.nbytes


def test_what_the_allocator_refuses_is_refused_in_the_same_words() -> None:
    allocator = TrackedAllocator(torch.device(DEVICE))

    def allocate() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 TiB.")

    with (
        pytest.raises(DeviceMemoryError, match=r"123 bytes wanted .* are free"),
        allocator.room(123),
    ):
        allocate()


def test_a_device_without_a_limit_has_what_its_driver_says() -> None:
    memory = TrackedAllocator(torch.device(DEVICE)).memory()
    assert 0 < memory.free <= memory.total


def test_what_passes_took_is_theirs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were torch's cache given back before the driver is asked, a KV cache would take the room of passes."""
    cached = 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 - cached, 200))

    def empty() -> None:
        nonlocal cached
        cached = 0

    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    assert TrackedAllocator(torch.device("cuda", 0)).memory() == DeviceMemory(70, 200)


def test_weights_caches_and_slots_run_out() -> None:
    tensor, vector = random_tensor("Q4_K", (4, 8, 512)), np.ones(16, np.float32)
    size = packed_bytes(tensor.type, tensor.shape)
    shape = CacheShape(layers=2, pages=3, page_size=4, heads=1, key=64, value=32)
    cache_size = shape.bytes_per_position * 12
    ops = GpuOps(DEVICE, limit=BLOCK_BYTES + size + cache_size + 64)
    total = ops.memory().total
    weight = ops.matrix(tensor)
    cache = ops.kv_cache(shape)
    norm = ops.vector(Tensor("norm", BY_NAME["F32"], (16,), vector.view(np.uint8)))
    assert ops.memory().free == total - BLOCK_BYTES - size - cache_size - norm.nbytes == 0
    for make in (
        lambda: ops.matrix(tensor),
        lambda: ops.expert_slots(tensor, 1),
        lambda: ops.kv_cache(shape),
        lambda: ops.vector(Tensor("norm", BY_NAME["F32"], (16,), vector.view(np.uint8))),
    ):
        with pytest.raises(DeviceMemoryError, match="0 are free"):
            make()
    del cache, norm
    assert ops.memory().free == cache_size + 64
    del weight
    slots = ops.expert_slots(tensor, 3)
    assert slots.shape == (3, 8, 512)
    ops.close()


def test_a_cache_in_8_bits_counts_its_scales() -> None:
    shape = CacheShape(layers=1, pages=2, page_size=4, heads=2, key=64, value=32, kind="q8")
    ops = GpuOps(DEVICE, limit=1 << 20)
    cache = ops.kv_cache(shape)
    assert ops.memory().free == (1 << 20) - shape.bytes_per_position * 8
    assert cache.page_size == 4
