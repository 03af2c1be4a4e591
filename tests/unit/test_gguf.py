"""The GGUF reader: what it reads, what it refuses, and how fast and small it stays."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf as reference
import numpy as np
import pytest

from engine.errors import ModelFileError, UnsupportedModelError
from engine.gguf.file import GGUFFile
from engine.gguf.values import LazyArray
from tests.support import gguf_bytes as raw
from tests.support.clock import assert_within, computed_within

VOCABS = Path(__file__).parents[2].parent / "shared" / "data" / "vocabs"


def write(folder: Path, data: bytes, name: str = "model.gguf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(path)
    error = caught.value
    assert "\n" not in str(error) and str(error).isascii()
    assert error.what and (error.why or error.todo)
    return str(error)


# What it reads.


@pytest.mark.parametrize("version", [2, 3])
def test_values_come_out_as_they_went_in(tmp_path: Path, version: int) -> None:
    source = raw.small()
    source.version = version
    with GGUFFile.open(write(tmp_path, source.build())) as file:
        assert file.version == version
        assert file.string("general.architecture") == "toy"
        assert file.u32("toy.block_count") == 2
        assert file.f32("toy.scale") == 0.5
        assert file.flag("toy.flag") is True
        assert file.metadata["toy.wide"] == 1 << 40
        tokens = file.array("tokenizer.ggml.tokens")
        types, flags = file.array("tokenizer.ggml.token_type"), file.array("toy.flags")
        assert tokens is not None and types is not None and flags is not None
        assert list(tokens.strings()) == ["a", "bc", "", "äö"]
        assert [tokens[i] for i in (3, 0, -1)] == ["äö", "a", "äö"]
        assert types.numpy().tolist() == [1, 2, 3, -4] and types[3] == -4
        assert flags.numpy().tolist() == [False, True, True]


def test_weights_are_views_into_the_file(tmp_path: Path) -> None:
    source = raw.small()
    with GGUFFile.open(write(tmp_path, source.build())) as file:
        matrix, experts = file.tensor("matrix"), file.tensor("experts")
        assert (matrix.type.name, matrix.shape, len(matrix.data)) == ("Q8_0", (2, 32), 68)
        assert experts.shape == (2, 3, 4)
        assert bytes(experts.data) == source.data[128:224]
        assert not experts.data.flags.owndata and not experts.data.flags.writeable
        assert file.weights_bytes == 32 + 68 + 96


def test_views_outlive_the_file(tmp_path: Path) -> None:
    file = GGUFFile.open(write(tmp_path, raw.small().build()))
    data = file.tensor("vector").data
    file.close()
    assert bytes(data) == bytes(range(32))


def test_a_reader_by_others_sees_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    rng = np.random.default_rng(7)
    writer = reference.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_float32("llama.eps", 1e-5)
    writer.add_array("llama.list", [1, -2, 3])
    writer.add_array("llama.names", ["x", "", "中文"])
    writer.add_bool("llama.flag", False)
    for name, shape, dtype in (
        ("token_embd.weight", (5, 64), np.float32),
        ("blk.0.ffn_gate_exps.weight", (4, 3, 32), np.float16),
        ("norm", (7,), np.float32),
    ):
        writer.add_tensor(name, rng.standard_normal(shape).astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    theirs = reference.GGUFReader(path)
    with GGUFFile.open(path) as ours:
        assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
        for tensor in theirs.tensors:
            mine = ours.tensor(tensor.name)
            assert mine.type.name == tensor.tensor_type.name
            assert mine.shape == tuple(int(size) for size in reversed(tensor.shape))
            assert bytes(mine.data) == tensor.data.tobytes()
        for name, entry in theirs.fields.items():
            if name.startswith("GGUF."):
                continue
            value = ours.metadata[name]
            if isinstance(value, LazyArray):
                text = value.element == "string"
                value = list(value.strings()) if text else value.numpy().tolist()
            assert value == entry.contents()


@pytest.mark.skipif(not VOCABS.is_dir(), reason="../shared/data/vocabs is not there")
@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "deepseek-llm"])
def test_a_large_vocabulary_opens_at_once(name: str) -> None:
    seconds = []
    for _ in range(5):
        started = time.process_time()
        file = GGUFFile.open(VOCABS / f"ggml-vocab-{name}.gguf")
        seconds.append(time.process_time() - started)
    tokens = file.array("tokenizer.ggml.tokens")
    assert tokens is not None and len(tokens) > 100_000
    assert len(str(tokens[len(tokens) - 1])) > 0
    assert_within(min(seconds), 0.15)


# What the getters refuse.


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda file: file.u32("toy.none"), "toy.none is missing"),
        (lambda file: file.u32("toy.scale"), "toy.scale is 0.5, not a whole number"),
        (lambda file: file.u32("toy.wide"), "toy.wide is 1099511627776"),
        (lambda file: file.u32("toy.flag"), "toy.flag is True"),
        (lambda file: file.f32("general.architecture"), "is toy, not a number"),
        (lambda file: file.string("toy.block_count"), "is 2, not text"),
        (lambda file: file.flag("toy.block_count"), "is 2, not true or false"),
        (lambda file: file.array("toy.block_count"), "is 2, not an array"),
        (lambda file: file.tensor("none"), "The tensor none is missing"),
    ],
)
def test_a_wrong_value_is_named(
    tmp_path: Path, ask: Callable[[GGUFFile], object], words: str
) -> None:
    with GGUFFile.open(write(tmp_path, raw.small().build())) as file:
        with pytest.raises(ModelFileError, match=r"model\.gguf is damaged") as caught:
            ask(file)
        assert words in str(caught.value) and "Download" in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_must_be_finite(tmp_path: Path, number: float) -> None:
    source = raw.File(raw.entries({"eps": number}))
    file = GGUFFile.open(write(tmp_path, source.build()))
    with pytest.raises(ModelFileError, match="finite"):
        file.f32("eps")


# What is no model at all.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"GG", "not a GGUF"),
        (b"hello, world, this is text\n" * 4, "not a GGUF"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"PK\x03\x04" + bytes(64), "PyTorch"),
        (b"tjgg" + bytes(64), "old GGJT"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(64), "GGUF version 1"),
        (b"GGUF" + struct.pack("<I", 4) + bytes(64), "Update ktchat"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
        (b"GGUF\x03\x00\x00", "ends inside the version"),
    ],
)
def test_another_kind_of_file_is_told_apart(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in refusal(write(tmp_path, data))


def test_a_path_that_is_no_file_is_told_apart(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / "none.gguf")
    assert "is a folder" in refusal(tmp_path)
    assert "is not a file" in refusal(Path("/dev/null"))
    assert "cannot be opened" in refusal(Path("a\0b"))
    assert "cannot be opened" in refusal(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be opened" in refusal(tmp_path / "loop")


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, raw.small().build())

    def forbidden(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert "cannot be read" in refusal(path)


def test_a_file_that_shrinks_while_its_header_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, raw.small().build())
    read = os.pread

    def shrinking(descriptor: int, length: int, offset: int) -> bytes:
        os.truncate(path, 40)
        return read(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", shrinking)
    assert "became shorter" in refusal(path)


def test_what_was_read_of_a_header_survives_the_file(tmp_path: Path) -> None:
    with GGUFFile.open(write(tmp_path, raw.small().build())) as file:
        before = {key: described(value) for key, value in file.metadata.items()}
        name = next(iter(file.tensors))
        assert file.read(name) == file.tensor(name).data.tobytes()
        os.truncate(file.path, 8)
        assert {key: described(value) for key, value in file.metadata.items()} == before
        with pytest.raises(ModelFileError, match="became shorter"):
            file.read(name)


def described(value: object) -> str:
    """A value of the metadata with all that an array holds."""
    if not isinstance(value, LazyArray):
        return repr(value)
    return repr(list(value.raw()) if value.element == "string" else value.numpy().tolist())


def test_control_characters_of_a_name_do_not_reach_the_message(tmp_path: Path) -> None:
    assert "\\x1b" in refusal(write(tmp_path, b"nonsense" * 9, "a\x1b[31m.gguf"))


# Damage, one field at a time.


def broken(change: Callable[[raw.File], None]) -> bytes:
    source = raw.small()
    change(source)
    return source.build()


def tensors(*rows: bytes) -> Callable[[raw.File], None]:
    def change(source: raw.File) -> None:
        source.tensors = list(rows)

    return change


def keys(*added: bytes) -> Callable[[raw.File], None]:
    return lambda source: source.entries.extend(added)


def counts(tensors: int, keys: int) -> Callable[[raw.File], None]:
    def change(source: raw.File) -> None:
        source.counts = (tensors, keys)

    return change


HUGE = (1 << 64) - 1
LYING_STRING = raw.text("k") + struct.pack("<IQ", raw.STRING, HUGE)
LYING_ARRAY = raw.text("k") + struct.pack("<IIQ", raw.ARRAY, raw.F64, HUGE)
LYING_STRINGS = raw.text("k") + struct.pack("<IIQ", raw.ARRAY, raw.STRING, 1 << 40)
INNER_STRING = raw.text("k") + struct.pack("<IIQQ", raw.ARRAY, raw.STRING, 2, HUGE)
NESTED = raw.text("k") + struct.pack("<IIQIQ", raw.ARRAY, raw.ARRAY, 1, raw.ARRAY, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (counts(HUGE, 8), "claims 18446744073709551615 tensors"),
        (counts(3, HUGE), "claims 18446744073709551615 keys"),
        (counts(3, 60), "keys, more than it can hold"),
        (keys(raw.entry("", raw.U32, 1)), "a name of 0 bytes"),
        (keys(raw.entry("k" * 2000, raw.U32, 1)), "a name of 2000 bytes"),
        (keys(raw.entry(b"\xff\xfe", raw.U32, 1)), "not text"),
        (keys(raw.entry("toy.flag", raw.U32, 1)), "toy.flag is there twice"),
        (keys(raw.text("k") + struct.pack("<I", 99)), "unknown type 99"),
        (keys(raw.text("k") + struct.pack("<IIQ", raw.ARRAY, 99, 0)), "unknown type 99"),
        (keys(NESTED), "array of arrays"),
        (keys(LYING_STRING), "bytes of text"),
        (keys(LYING_ARRAY), "ends inside the value of k"),
        (keys(LYING_STRINGS), "strings, more than it can hold"),
        (keys(INNER_STRING), "ends inside the value of k"),
        (keys(raw.entry("general.alignment", raw.U32, 0)), "power of two"),
        (keys(raw.entry("general.alignment", raw.U32, 4)), "power of two"),
        (keys(raw.entry("general.alignment", raw.U32, 48)), "power of two"),
        (keys(raw.entry("general.alignment", raw.U32, 1 << 31)), "power of two"),
        (keys(raw.entry("general.alignment", raw.STRING, "32")), "power of two"),
        (tensors(raw.tensor("t" * 64, [8], 0, 0)), "a name of 64 bytes"),
        (tensors(raw.tensor("t", [], 0, 0)), "0 dimensions"),
        (tensors(raw.tensor("t", [2] * 5, 0, 0)), "5 dimensions"),
        (tensors(raw.tensor("t", [8, 0], 0, 0)), "impossible shape"),
        (tensors(raw.tensor("t", [1 << 32, 1 << 32], 0, 0)), "impossible shape"),
        (tensors(raw.tensor("t", [HUGE] * 4, 0, 0)), "impossible shape"),
        (tensors(raw.tensor("t", [8], 43, 0)), "unknown type 43"),
        (tensors(raw.tensor("t", [8], 1000, 0)), "unknown type 1000"),
        (tensors(raw.tensor("t", [33, 2], 8, 0)), "whole blocks of 32"),
        (tensors(raw.tensor("t", [8], 0, 64)), "starts at 64 of the data, not at 0"),
        (tensors(raw.tensor("t", [8], 0, HUGE)), "starts at 18446744073709551615"),
        (tensors(raw.tensor("a", [8], 0, 0), raw.tensor("b", [8], 0, 0)), "Tensor b starts at 0"),
        (tensors(raw.tensor("a", [8], 0, 0), raw.tensor("a", [8], 0, 32)), "a is there twice"),
        (tensors(raw.tensor("t", [1 << 40], 0, 0)), "is incomplete"),
    ],
)
def test_damage_is_named(tmp_path: Path, change: Callable[[raw.File], None], words: str) -> None:
    path = write(tmp_path, broken(change))
    with computed_within(0.5):
        assert words in refusal(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = raw.small().build()
    ends = range(len(whole))
    for end in ends:
        message = refusal(write(tmp_path, whole[:end], "cut.gguf"))
        assert "cut.gguf" in message
    assert GGUFFile.open(write(tmp_path, whole)).tensors


def test_an_incomplete_download_says_how_much_is_there(tmp_path: Path) -> None:
    whole = raw.small().build()
    message = refusal(write(tmp_path, whole[:-40]))
    assert f"It has {len(whole) - 40} of {len(whole)} bytes" in message


def test_mutations_give_a_model_or_a_typed_error(tmp_path: Path) -> None:
    rng = random.Random(20240517)
    whole = raw.small().build()
    path = tmp_path / "mutant.gguf"
    refused = 0
    for _ in range(3000):
        path.write_bytes(mutate(rng, whole))
        try:
            with GGUFFile.open(path) as file:
                read_everything(file)
        except (ModelFileError, UnsupportedModelError) as error:
            refused += 1
            assert "mutant.gguf" in str(error)
    assert 1000 < refused < 3000


def mutate(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to four small accidents."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        kind, at = rng.randrange(6), rng.randrange(len(made))
        if kind == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            special = rng.choice((0, 1, 0x7FFFFFFF, 1 << 31, 1 << 32, 1 << 40, 1 << 63, HUGE))
            made[at : at + 8] = struct.pack("<Q", special)
        elif kind == 3:
            del made[at : at + rng.randint(1, 16)]
        elif kind == 4:
            made[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 16)))
        else:
            other = rng.randrange(len(made))
            made[at : at + 8] = made[other : other + 8]
        if not made:
            made = bytearray(b"G")
    return bytes(made)


def read_everything(file: GGUFFile) -> None:
    for value in file.metadata.values():
        if isinstance(value, LazyArray) and len(value):
            list(value.strings()) if value.element == "string" else value.numpy().sum()
            value[len(value) - 1]
    for name in file.tensors:
        file.tensor(name).data.sum(dtype=np.uint64)


WORST = {
    "many strings": lambda: raw.File(
        [raw.text("k") + struct.pack("<IIQ", raw.ARRAY, raw.STRING, 1 << 21) + bytes(8 << 21)]
    ),
    "more strings than a vocabulary has": lambda: raw.File(
        [raw.text("k") + struct.pack("<IIQ", raw.ARRAY, raw.STRING, 6 << 20) + bytes(8 * (6 << 20))]
    ),
    "many keys": lambda: raw.File([raw.entry(f"k{i}", raw.U8, 1) for i in range(1 << 16)]),
    "long strings": lambda: raw.File(
        [raw.entry(f"k{i}", raw.STRING, b"\xff" * (2 << 20)) for i in range(60)]
    ),
    "many tensors": lambda: raw.File(
        [], [raw.tensor(f"t{i}", [1], 24, 32 * i) for i in range(1 << 16)], bytes(32 << 16)
    ),
    "a huge header": lambda: raw.File(
        [raw.text("k") + struct.pack("<IIQ", raw.ARRAY, raw.U8, 300 << 20) + bytes(300 << 20)]
    ),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_files_take_little_time_and_memory(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, WORST[name]().build())
    script = (
        "import re, sys, time\n"
        "from pathlib import Path\n"
        "from engine.errors import ModelFileError\n"
        "from engine.gguf.file import GGUFFile\n"
        "started = time.process_time()\n"
        "try:\n"
        "    file = GGUFFile.open(Path(sys.argv[1]))\n"
        "except ModelFileError:\n"
        "    pass\n"
        "seconds = time.process_time() - started\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "print(seconds, int(peak[1]) >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    seconds, mebibytes = done.stdout.split()
    assert_within(float(seconds), 2)
    assert int(mebibytes) < 256


# Models in several files.


def part(number: int, count: int, total: int, names: list[str]) -> bytes:
    rows = [raw.tensor(name, [8], 0, 32 * i) for i, name in enumerate(names)]
    made = [raw.entry("general.architecture", raw.STRING, "toy")] if number == 0 else []
    made += raw.entries({"split.no": number, "split.count": count, "split.tensors.count": total})
    return raw.File(made, rows, bytes([number]) * 32 * len(names)).build()


def split_model(folder: Path) -> list[Path]:
    parts = [["a", "b"], ["c"], ["d", "e"]]
    return [
        write(folder, part(i, 3, 5, names), f"m-{i + 1:05}-of-00003.gguf")
        for i, names in enumerate(parts)
    ]


def test_parts_are_one_model_whichever_is_opened(tmp_path: Path) -> None:
    paths = split_model(tmp_path)
    for path in paths:
        with GGUFFile.open(path) as file:
            assert file.paths == tuple(paths) and file.path == paths[0]
            assert list(file.tensors) == list("abcde")
            assert bytes(file.tensor("d").data) == b"\2" * 32


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = split_model(tmp_path)
    paths[1].unlink()
    assert "m-00002-of-00003.gguf is missing" in refusal(paths[0])
    paths[0].unlink()
    assert "m-00001-of-00003.gguf is missing" in refusal(paths[2])


@pytest.mark.parametrize(
    ("index", "data", "words"),
    [
        (1, part(2, 3, 5, ["c"]), "m-00002-of-00003.gguf is damaged. It does not hold part 2"),
        (1, part(1, 4, 5, ["c"]), "not part of a model in 3 files"),
        (1, part(1, 3, 5, ["c", "x"]), "The parts hold 6 tensors"),
        (1, part(1, 3, 5, ["a"]), "The tensor a is there twice"),
        (1, b"nonsense" * 20, "m-00002-of-00003.gguf is not a GGUF"),
        (2, part(2, 3, 5, ["d", "e"])[:-40], "m-00003-of-00003.gguf is incomplete"),
        (0, part(0, 60000, 5, ["a", "b"]), "split.count is 60000"),
    ],
)
def test_a_wrong_part_is_named(tmp_path: Path, index: int, data: bytes, words: str) -> None:
    paths = split_model(tmp_path)
    paths[index].write_bytes(data)
    assert words in refusal(paths[0])


def test_a_renamed_part_says_how_it_must_be_called(tmp_path: Path) -> None:
    paths = split_model(tmp_path)
    assert "-00001-of-00003.gguf" in refusal(paths[0].rename(tmp_path / "renamed.gguf"))
