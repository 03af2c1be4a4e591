"""Packing for the GPU: every bit of the file is kept, nothing is added, nothing is read beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import IQ2_XXS, IQ4_NL, MXFP4, _type_traits

from kernels.gpu.quant.codebooks import _GRIDS, codebook
from kernels.gpu.quant.formats import FORMATS
from kernels.gpu.quant.layout import Codes, RowScale
from kernels.gpu.quant.packing import FileRows, pack
from kernels.gpu.quant.weight import PackedWeight, packed_bytes
from kernels.ops import Tensor
from kernels.quants import BY_NAME
from tests.kernels.gpu.quantised_cases import random_tensor, repack

CPU = torch.device("cpu")


def packed(codes: Codes, blocks: torch.Tensor) -> torch.Tensor:
    """The plane of these blocks, (count, bytes in the plane)."""
    size = codes.stop - codes.start
    target = torch.zeros(1, len(blocks) * size, dtype=torch.uint8)
    pack(codes, FileRows(blocks.reshape(1, -1), blocks.shape[1]), target)
    return target.view(-1, size)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_planes_hold_every_byte_of_a_block_once(name: str) -> None:
    kind, planes = BY_NAME[name], FORMATS[name].planes
    assert [plane.stop for plane in planes if isinstance(plane, RowScale)] == [kind.prefix] * bool(
        kind.prefix
    )
    planes = sorted((p for p in planes if not isinstance(p, RowScale)), key=lambda p: p.start)
    assert [plane.start for plane in planes] == [0, *(plane.stop for plane in planes[:-1])]
    assert planes[-1].stop == kind.bytes


@pytest.mark.parametrize(
    "codes",
    [plane for form in FORMATS.values() for plane in form.planes if isinstance(plane, Codes)],
)
def test_packing_numbers_loses_no_bit(codes: Codes) -> None:
    """Each bit of a field, alone, gives one bit of its own."""
    size = codes.stop - codes.start
    fields = np.packbits(np.eye(8 * size, dtype=np.uint8), axis=1)
    blocks = np.zeros((8 * size, codes.stop), dtype=np.uint8)
    blocks[:, codes.start :] = fields
    bits = np.unpackbits(packed(codes, torch.from_numpy(blocks)).numpy(), axis=1)
    assert (bits.sum(axis=0) == 1).all() and (bits.sum(axis=1) == 1).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_masked_word_holds_one_group(bits: int) -> None:
    """Byte i of group (j, h) is column 16 h + 4 i + j; told by each column's number, a bit at a time."""
    for plane in range(5):
        column = np.arange(32)
        codes = (column >> plane & 1).astype(np.uint8)  # of `bits` bits, the lowest set or not
        file = np.zeros(4 * bits, np.uint8)
        np.bitwise_or.at(file, column % (4 * bits), codes << bits * (column // (4 * bits)))
        words = packed(Codes(0, 4 * bits, bits, 4 * bits), torch.from_numpy(file)[None])
        words = words.view(torch.int32)[0].tolist()
        for j in range(4):
            for h in range(2):
                group = 4 * h + j if bits == 8 else 2 * j + h
                if bits == 1:
                    group = 4 * (j % 2) + 2 * (j // 2) + h
                per_word = 8 // bits
                word = words[group // per_word] >> (bits * (group % per_word))
                for i in range(4):
                    assert word >> (8 * i) & ((1 << bits) - 1) == (16 * h + 4 * i + j) >> plane & 1


def test_numbers_that_are_looked_up_lie_slot_by_slot() -> None:
    low = torch.arange(16, dtype=torch.uint8)
    block = low | (15 - low) << 4  # Q4_0's: column c < 16 is c, column 16 + c is 15 - c
    words = packed(Codes(0, 16, 4, 16, by_slot=True), block[None]).view(torch.int32)[0]
    columns = [*range(16), *range(15, -1, -1)]
    for lane in range(4):
        for slot in range(8):
            assert int(words[lane]) >> (4 * slot) & 15 == columns[4 * slot + lane]


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("shape", [(4096, 2048), (2, 768, 2048), (2, 2048, 768)])
def test_packed_weights_are_as_large_as_the_file(name: str, shape: tuple[int, ...]) -> None:
    kind = BY_NAME[name]
    file = int(np.prod(shape[:-1])) * kind.row_bytes(shape[-1])
    more = kind.prefix / kind.bytes  # beside every block
    assert file <= packed_bytes(kind, shape) <= (1.01 + more) * file


def test_an_expert_is_put_in_a_place_of_its_own() -> None:
    tensor = random_tensor("Q4_K", (3, 4, 256))
    raw = torch.from_numpy(tensor.data.reshape(3, 4, -1))
    weight, whole = PackedWeight.empty(tensor.type, (2, 4, 256)), repack(tensor)
    weight.store(raw[2:], matrix=1)
    assert torch.equal(weight.data[1], whole.data[2])
    assert not weight.data[0].any()


def test_weights_can_move() -> None:
    weight = repack(random_tensor("Q5_K", (3, 256)))
    moved = weight.to("cpu")
    assert torch.equal(moved.data, weight.data)
    assert [plane.dtype for plane in moved.planes] == [plane.dtype for plane in weight.planes]


def test_bytes_that_are_not_the_shape_are_refused() -> None:
    tensor = random_tensor("Q4_0", (3, 64))
    with pytest.raises(ValueError, match="not its shape"):
        repack(Tensor("short", tensor.type, (4, 64), tensor.data))
    with pytest.raises(ValueError, match="no GPU product reads I32"):
        PackedWeight.empty(BY_NAME["I32"], (4, 64))
    with pytest.raises(ValueError, match="multiples of 256"):
        PackedWeight.empty(BY_NAME["Q4_K"], (4, 96))
    with pytest.raises(ValueError, match="a weight is"):
        PackedWeight.empty(BY_NAME["F32"], (64,))


@pytest.mark.parametrize("name", sorted(_GRIDS))
def test_grids_are_those_of_gguf(name: str) -> None:
    traits = _type_traits[GGMLQuantizationType[name]]
    traits.init_grid()
    assert np.array_equal(codebook(name, CPU).numpy(), traits.grid.reshape(-1))


def test_values_are_those_of_gguf() -> None:
    assert codebook("IQ4_NL", CPU)[:16].tolist() == list(IQ4_NL.kvalues)
    assert codebook("MXFP4", CPU)[:16].tolist() == list(MXFP4.kvalues)


def test_seven_signs_give_the_eighth() -> None:
    """What the decoders reckon in place of gguf's table of 128 bytes."""
    for seven, byte in enumerate(IQ2_XXS.ksigns):
        assert byte == seven | (seven.bit_count() & 1) << 7
