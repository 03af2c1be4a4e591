"""Specs from the first bytes of a file that is somewhere else: the same as of the file, and no more
read than needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ModelFileError
from engine.evaluation.synthetic import shape_file
from engine.gguf import beginning
from engine.gguf.file import GGUFFile
from engine.spec.reader import read_spec
from engine.spec.remote import RemoteGGUF, RemotePart, spec_from_header, spec_from_parts
from engine.spec.spec import ModelSpec
from tests.support.tiny import MODELS, tiny_model


class Served:
    """A file that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.reads = path, path.read_bytes(), list[tuple[int, int]]()

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]

    @property
    def part(self) -> RemotePart:
        return RemotePart(self.path.name, len(self.data), self.read)


def local(path: Path) -> ModelSpec:
    with GGUFFile.open(path) as file:
        return read_spec(file)


@pytest.mark.parametrize(("architecture", "variant"), MODELS)
def test_the_spec_is_that_of_the_file(architecture: str, variant: str, tmp_path: Path) -> None:
    path = tiny_model(architecture, tmp_path, variant=variant)
    served = Served(path)
    assert spec_from_header(served.read, len(served.data), path.name) == local(path)


@pytest.mark.parametrize("first", [16, 100, 5000, 1 << 20])
def test_only_the_header_is_read_whatever_is_asked_for_first(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning, "FIRST", first)
    path = shape_file("qwen3-4b", 1, tmp_path)
    served = Served(path)
    assert spec_from_header(served.read, len(served.data), path.name) == local(path)
    with GGUFFile.open(path) as file:
        header = min(info.offset for info in file.tensors.values())
    read = sum(length for _, length in served.reads)
    assert read <= max(first, 2 * header) < len(served.data)
    ends = [offset + length for offset, length in served.reads]
    assert [offset for offset, _ in served.reads] == [0, *ends[:-1]]  # nothing is read twice


def test_a_header_that_lies_is_refused_as_locally(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    good = path.read_bytes()
    changes: list[Callable[[bytes], bytes]] = [
        lambda data: b"",
        lambda data: b"<html>" + data,
        lambda data: data[: len(data) // 2],
        lambda data: data[:4] + b"\x09" + data[5:],
        lambda data: data[:8] + b"\xff" * 8 + data[16:],
        lambda data: data.replace(b"general.architecture", b"general.architectura", 1),
    ]
    for number, change in enumerate(changes):
        bad = tmp_path / f"{number}.gguf"
        bad.write_bytes(change(good))
        with pytest.raises(ModelFileError) as here:
            local(bad)
        served = Served(bad)
        with pytest.raises(ModelFileError) as there:
            spec_from_header(served.read, len(served.data), bad.name)
        assert there.value.why == here.value.why or not served.data


def test_a_size_smaller_than_the_weights_is_an_incomplete_file(tmp_path: Path) -> None:
    served = Served(tiny_model("qwen3moe", tmp_path))
    with pytest.raises(ModelFileError, match="incomplete"):
        spec_from_header(served.read, len(served.data) - 4096)


def test_a_reader_that_gives_too_little_is_not_believed(tmp_path: Path) -> None:
    served = Served(tiny_model("qwen3moe", tmp_path))
    with pytest.raises(ModelFileError, match="could not be read"):
        spec_from_header(lambda offset, length: served.read(offset, length)[:-1], len(served.data))


def test_weights_are_not_fetched(tmp_path: Path) -> None:
    path = shape_file("qwen3-4b", 1, tmp_path)
    served = Served(path)
    with RemoteGGUF.open_parts([served.part]) as file:
        assert file.read("output_norm.weight") == bytes(
            GGUFFile.open(path).tensor("output_norm.weight").data
        )
        with pytest.raises(ModelFileError, match="not downloaded"):
            file.read("token_embd.weight")


def test_a_part_alone_is_not_a_model(tmp_path: Path) -> None:
    from tests.support.gguf_bytes import U32, File, entry

    entries = [entry("split.count", U32, 2), entry("split.no", U32, 0)]
    path = tmp_path / "m-00001-of-00002.gguf"
    path.write_bytes(File(entries).build())
    with pytest.raises(ModelFileError, match="not part of a model in 1 files"):
        spec_from_parts([Served(path).part])
