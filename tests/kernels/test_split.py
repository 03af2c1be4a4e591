"""A forward pass divided between two op sets says what one op set says, wherever the experts are.

A simulated device stands for the GPU, so that the split itself is exercised on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.gguf.file import GGUFFile
from engine.model.host_copies import HostCopies
from engine.model.transformer import Transformer, page_table
from engine.spec.reader import read_spec
from kernels.cpu import CpuOps
from kernels.cpu.expert_requests import RequestQueue
from kernels.device import HostSync
from kernels.hybrid.split import SplitOps
from kernels.hybrid.split_experts import Slots
from kernels.ops import Floats, Ops, Tensor
from kernels.reference import ReferenceOps
from tests.support.fidelity import logits, nmse
from tests.support.matrix import pairs
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import MOE_MODELS, tiny_model

torch.set_num_threads(1)
CHUNKS = (1, 20, 1, 1, 1, 40, *[1] * 12)
TOKENS = np.random.default_rng(5).integers(0, 250, sum(CHUNKS)).tolist()


def none(tensor: Tensor) -> int:
    return 0


def every(tensor: Tensor) -> int:
    return tensor.shape[0]


def half(tensor: Tensor) -> int:
    return tensor.shape[0] // 2


def by_layer(tensor: Tensor) -> int:
    """All of some layers, none of others, and half of the rest."""
    return tensor.shape[0] * (int(tensor.name.split(".")[1]) % 3) // 2


PLACES = [none, every, half, by_layer]


class NumpyReference(ReferenceOps):
    """The reference with numpy's buffers, as a host has them."""

    def moe_add(self, x: Any, ids: Any, weights: Any, *rest: Any) -> None:
        gate, up, down, residual, *more = rest
        shared = (torch.from_numpy(array) for array in (x, ids, weights))
        super().moe_add(*shared, gate, up, down, torch.from_numpy(residual), *more)


def run(path: Path, ops: Ops[Any, Any, Any]) -> Floats:
    return logits(path, ops, CHUNKS, TOKENS)


@contextmanager
def split(
    slots: Slots, device: SimulatedDevice | None = None, host: Any = None
) -> Iterator[SplitOps[Any, Any, Any]]:
    host = host or CpuOps(2)
    ops: SplitOps[Any, Any, Any] = SplitOps(device or SimulatedDevice(), host, slots)
    try:
        yield ops
    finally:
        ops.close()
        host.close()


@pytest.mark.parametrize(("architecture", "variant", "slots"), pairs(MOE_MODELS, PLACES))
def test_logits_do_not_depend_on_where_experts_are(
    architecture: str, variant: str, slots: Slots, tmp_path: Path
) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant)
    host = NumpyReference()
    host.close = lambda: None  # type: ignore[attr-defined]
    with split(slots, SimulatedDevice(host_sync="none"), host) as ops:
        # Only the order of the sums differs.
        assert nmse(run(path, ops), run(path, ReferenceOps())) < 1e-10


@pytest.mark.parametrize(("architecture", "variant", "slots"), pairs(MOE_MODELS, PLACES))
def test_a_captured_token_gets_the_hosts_experts_layer_by_layer(
    architecture: str, variant: str, slots: Slots, tmp_path: Path
) -> None:
    """The host's kernels round activations to 8 bits: no more than they do on the CPU alone."""
    path = tiny_model(architecture, tmp_path, variant=variant)
    device = SimulatedDevice()
    whole = run(path, ReferenceOps())
    with split(slots, device) as ops:
        ours = nmse(run(path, ops), whole)
    assert device.replays == CHUNKS.count(1) - 1
    assert ours <= 1.1 * nmse(run(path, CpuOps(2)), whole) + 1e-11


@pytest.mark.parametrize("host_sync", ["none", "stream memory operations"])
def test_experts_that_are_wanted_come_to_the_device(host_sync: HostSync, tmp_path: Path) -> None:
    """A conversation that repeats itself finds its experts there, and says what it said before."""
    path = tiny_model("qwen3moe", tmp_path)
    device = SimulatedDevice(host_sync=host_sync)
    chunks, tokens = [1] * 60, [3, 4] * 30
    with split(half, device) as ops:
        got = logits(path, ops, chunks, tokens)
        assert device.uploads and all(
            copy.tensor.shape[0] > copy.slot >= 0 for batch in device.uploads for copy in batch
        )
        residency = ops.residency
        assert residency is not None and (residency.slot_of >= 0).sum() > 4
        if host_sync != "none":
            assert residency.hits > 0.3 * residency.lookups
    wanted = logits(path, ReferenceOps(), chunks, tokens)
    assert nmse(got, wanted) <= 1.1 * nmse(logits(path, CpuOps(2), chunks, tokens), wanted) + 1e-11


@pytest.mark.parametrize("slots", [none, half])
def test_long_chunks_pass_through_the_device(
    slots: Slots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layer's absent experts are asked for before its router has chosen, and no others."""
    path = tiny_model("deepseek2", tmp_path, variant="v2-lite")
    device = SimulatedDevice()
    with split(slots, device) as ops:
        ops.stream_from(21)
        ahead: list[Any] = []
        stream = device.stream

        def noted(layers: Any, tokens: int) -> None:
            ahead[:] = layers or ahead
            stream(layers, tokens)

        monkeypatch.setattr(device, "stream", noted)
        got = run(path, ops)
        with GGUFFile.open(path) as file:
            layers = read_spec(file).moe_layers
        assert device.streamed == layers * sum(count >= 21 for count in CHUNKS)
        assert len(ahead) == layers and not device.ahead  # a token ends what was fetched
        known = [layer.experts for layer in ahead]
        assert all((len(experts) == 8) == (slots is none) for experts in known)
    whole = run(path, ReferenceOps())
    assert nmse(got, whole) <= 1.1 * nmse(run(path, CpuOps(2)), whole) + 1e-11


class Watched(CpuOps):
    """Notes the experts that it computes."""

    def __init__(self) -> None:
        super().__init__(1)
        self.pairs: list[int] = []

    def moe_add(self, x: Any, ids: Any, *rest: Any) -> None:
        self.pairs.append(int((ids >= 0).sum()))
        super().moe_add(x, ids, *rest)


@pytest.mark.parametrize(("slots", "share"), [(none, 1.0), (every, 0.0)])
def test_each_side_computes_its_own_experts_only(
    slots: Slots, share: float, tmp_path: Path
) -> None:
    host = Watched()
    path = tiny_model("qwen3moe", tmp_path)
    with GGUFFile.open(path) as file, split(slots, host=host) as ops:
        spec = read_spec(file)
        model: Transformer[Any, Any, Any] = Transformer(file, spec, ops, 4, 32)
        model.forward_all(np.arange(60, dtype=np.int32), page_table([0, 1, 2, 3]), 0)
    assert spec.moe is not None
    assert sum(host.pairs) == share * 60 * spec.moe.top_k * spec.moe_layers


def test_a_failure_on_the_host_reaches_the_caller(tmp_path: Path) -> None:
    class Failing(CpuOps):
        def moe_add(self, *arguments: Any) -> None:
            raise MemoryError("no memory for scratch buffers")

    path = tiny_model("qwen3moe", tmp_path)
    with pytest.raises(MemoryError, match="scratch"), split(none, host=Failing(1)) as ops:
        run(path, ops)


# ---- devices that make trouble while a token is repeated ----------------------------------------------


class Troubled(SimulatedDevice):
    """Does `trouble` at the launch of the second repeated token, before or after the launch."""

    def __init__(self, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self._before, self._after = before, after

    def record(self, forward: Any) -> Any:
        run = super().record(forward)

        def launch(*arguments: Any) -> Any:
            if self.replays == 1 and self._before is not None:
                before, self._before = self._before, None
                before(self)
            result = run(*arguments)
            if self.replays == 2 and self._after is not None:
                after, self._after = self._after, None
                after(self)
            return result

        return launch


def refuse(device: SimulatedDevice) -> None:
    raise RuntimeError("the device is lost")


def be_late(device: SimulatedDevice) -> None:
    """The queue is not as quick as the host is patient."""
    device.late = True


def eight_tokens(path: Path, device: SimulatedDevice, fails: type[Exception] | None = None) -> Any:
    """Logits of tokens read one by one; the one that fails is read again."""
    rows = []
    with GGUFFile.open(path) as file, split(none, device) as ops:
        model: Transformer[Any, Any, Any] = Transformer(file, read_spec(file), ops, 1, 32)
        for position in range(8):
            arguments = (
                np.array(TOKENS[position : position + 1], np.int32),
                page_table([0]),
                position,
            )
            if position == 2 and fails is not None:
                with pytest.raises(fails):
                    model.forward(*arguments)
            rows.append(model.forward(*arguments))
    return np.concatenate(rows)


def test_a_launch_may_wait_for_the_device(tmp_path: Path) -> None:
    """A driver's queue may be full, or memory be asked for: whoever launches waits, and the host serves."""
    path = tiny_model("qwen3moe", tmp_path)
    calm = eight_tokens(path, SimulatedDevice())
    assert np.array_equal(eight_tokens(path, Troubled(after=SimulatedDevice.drain)), calm)


@pytest.mark.parametrize(
    ("device", "fails"),
    [
        (lambda: Troubled(before=refuse), RuntimeError),
        (lambda: Troubled(after=refuse), RuntimeError),
        (lambda: Troubled(before=be_late), TimeoutError),
    ],
    ids=["refused", "refused behind it", "late"],
)
def test_a_token_that_failed_leaves_no_flag_up(
    device: Any, fails: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the host would serve the next token's first request before it is submitted."""
    path, troubled, serve = tiny_model("qwen3moe", tmp_path), device(), RequestQueue.serve

    def patient(queue: RequestQueue) -> None:
        try:
            serve(queue, 0.2 if troubled.late else 60.0)
        finally:
            troubled.late = False

    monkeypatch.setattr(RequestQueue, "serve", patient)
    calm = eight_tokens(path, SimulatedDevice())
    assert np.array_equal(eight_tokens(path, troubled, fails), calm)


def test_a_stack_cannot_have_more_slots_than_experts(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    with pytest.raises(ValueError, match="slots"), split(lambda t: t.shape[0] + 1) as ops:
        run(path, ops)


# ---- several devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 0, 1), (0, 1, 1), (2, 0, 1), (2, 2, 0)])
def test_layers_may_lie_on_several_devices(order: tuple[int, ...], tmp_path: Path) -> None:
    """Two devices and the CPU: each has its own layers, caches and experts, and works only while current."""
    path = tiny_model("deepseek2", tmp_path, variant="v2-lite")
    host, devices = CpuOps(2), [SimulatedDevice(), SimulatedDevice()]
    sides: list[Any] = [SplitOps(device, host, half) for device in devices]
    each = [(*sides, host)[number] for number in order]
    whole = run(path, ReferenceOps())
    got = logits(path, each, CHUNKS, TOKENS)
    assert nmse(got, whole) <= 1.2 * nmse(run(path, host), whole) + 1e-11
    assert [device.held > 0 for device in devices] == [0 in order, 1 in order]
    assert all(device.replays == (CHUNKS.count(1) - 1) * (device.held > 0) for device in devices)
    for side in sides:
        side.close()
    host.close()


def test_layers_on_one_device_are_neighbours(tmp_path: Path) -> None:
    path = tiny_model("deepseek2", tmp_path, variant="v2-lite")
    one, other = SimulatedDevice(), SimulatedDevice()
    with pytest.raises(ValueError, match="next to each other"):
        logits(path, [one, other, one], CHUNKS, TOKENS)


def test_copied_pages_are_copied_on_every_device(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    devices = [SimulatedDevice(), SimulatedDevice()]
    with GGUFFile.open(path) as file:
        model: Transformer[Any, Any, Any] = Transformer(file, read_spec(file), devices, 3, 32)
    tokens = np.array(random.Random(1).sample(range(250), 20), np.int32)
    first = model.forward(tokens, page_table([0]), 0)
    model.copy_page(0, 2)
    model.forward(tokens[::-1].copy(), page_table([0]), 0)
    model.forward(tokens[:19], page_table([0]), 0)
    assert not np.array_equal(model.forward(tokens[-1:], page_table([0]), 18), first)
    again = model.forward(tokens[-1:], page_table([2]), 19)
    assert nmse(again, first) < 1e-12
    copies = HostCopies(model)
    copies.write_page(1, np.concatenate(copies.read_page(2)))
    assert np.array_equal(model.forward(tokens[-1:], page_table([1]), 19), again)
    with pytest.raises(ValueError, match="bytes do not fit"):
        copies.write_page(1, np.zeros(5, np.uint8))


def test_windows_go_back_on_every_device(tmp_path: Path) -> None:
    """A ring on the CPU and one on a device are gone round; what was kept of both is brought back."""
    path = tiny_model("gpt-oss", tmp_path, variant="narrow")
    host, pages = CpuOps(2), page_table(list(range(22)))
    side: Any = SplitOps(SimulatedDevice(), host, half)
    tokens = np.random.default_rng(4).integers(0, 250, 660).astype(np.int32)
    with GGUFFile.open(path) as file:
        parts = (file, read_spec(file))
        model: Transformer[Any, Any, Any] = Transformer(
            *parts, [host, side, side], len(pages), 32, slots=3
        )
        fresh: Transformer[Any, Any, Any] = Transformer(*parts, ReferenceOps(), len(pages), 32)
    for start, end in ((0, 70), (70, 360), (360, 660)):
        model.forward(tokens[start:end], pages, start)
        if end == 70:
            model.save_state(2)
    model.load_state(2, 70)
    fresh.forward(tokens[:70], pages, 0)
    for count in (1, 12, 1):
        part, start = tokens[100 : 100 + count], model._position
        got, wanted = model.forward(part, pages, start), fresh.forward(part, pages, start)
        assert nmse(got, wanted) < 1e-5
    with pytest.raises(ValueError, match="is that of 84, not of 70"):
        model.forward(tokens[:1], pages, 70)
    side.close()
    host.close()
