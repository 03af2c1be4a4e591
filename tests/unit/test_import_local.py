"""Models of other programs, and taking local files into the models folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.downloads import import_local
from engine.downloads.import_local import find_models, import_model
from engine.downloads.integrity import record_of
from engine.errors import ModelFileError
from engine.hub.errors import DownloadError

GGUF = b"GGUF" + bytes(100)
HEX = "ab" * 32


def put(path: Path, data: bytes = GGUF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def names(home: Path, **environment: str) -> list[tuple[str, str]]:
    return [(model.program, model.name) for model in find_models(environment, home)]


def ollama(folder: Path, name: str, tag: str, digest: str, layers: object = None) -> None:
    kind = "application/vnd.ollama.image.model"
    layers = layers or [{"mediaType": "x"}, {"mediaType": kind, "digest": digest}]
    path = folder / "manifests" / "registry.ollama.ai" / "library" / name / tag
    put(path, json.dumps({"layers": layers}).encode())


def test_models_of_four_programs_are_found_once_each(home: Path) -> None:
    put(home / ".lmstudio/models/own/repo/a.gguf")
    put(home / ".lmstudio/models/own/repo/mmproj-a.gguf")
    put(home / ".lmstudio/models/own/repo/junk.gguf", b"junk")
    put(home / ".cache/llama.cpp/b-00001-of-00002.gguf")
    put(home / ".cache/llama.cpp/b-00002-of-00002.gguf")
    blob = put(home / ".cache/huggingface/hub/models--o--r/blobs" / HEX)
    snapshot = home / ".cache/huggingface/hub/models--o--r/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "c-Q4_0.gguf").symlink_to(blob)
    ollama(home / ".ollama/models", "qwen3", "30b", f"sha256:{HEX}")
    put(home / f".ollama/models/blobs/sha256-{HEX}")
    (home / ".cache/llama.cpp/again.gguf").symlink_to(home / ".lmstudio/models/own/repo/a.gguf")
    found = find_models({}, home)
    assert [(m.program, m.name) for m in found] == [
        ("LM Studio", "a.gguf"),
        ("Ollama", "qwen3-30b.gguf"),
        ("llama.cpp", "b-00001-of-00002.gguf"),
        ("Hugging Face", "c-Q4_0.gguf"),
    ]
    assert [m.size for m in found] == [104, 104, 208, 104]
    assert [m.checksum for m in found] == ["", f"sha256:{HEX}", "", f"sha256:{HEX}"]


def test_the_programs_own_settings_are_followed(home: Path, tmp_path: Path) -> None:
    put(tmp_path / "lm/x.gguf")
    put(
        home / ".lmstudio/settings.json", json.dumps({"downloadsFolder": f"{tmp_path}/lm"}).encode()
    )
    ollama(tmp_path / "ol", "q", "latest", f"sha256:{HEX}")
    put(tmp_path / f"ol/blobs/sha256-{HEX}")
    put(tmp_path / "lc/y.gguf")
    put(tmp_path / "hf/models--o--r/snapshots/1/z.gguf")
    assert names(
        home,
        OLLAMA_MODELS=f"{tmp_path}/ol",
        LLAMA_CACHE=f"{tmp_path}/lc",
        HF_HUB_CACHE=f"{tmp_path}/hf",
    ) == [
        ("LM Studio", "x.gguf"),
        ("Ollama", "q-latest.gguf"),
        ("llama.cpp", "y.gguf"),
        ("Hugging Face", "z.gguf"),
    ]


def test_hostile_manifests_lead_nowhere(home: Path) -> None:
    secret = put(home / "secret.gguf")
    folder = home / ".ollama/models"
    ollama(folder, "a", "1", f"sha256:../../../{secret.name}")
    ollama(folder, "b", "1", "sha256:" + "/" * 64)
    ollama(folder, "c", "1", "", layers="text")
    ollama(folder, "d", "1", "", layers=[5, {"mediaType": "application/vnd.ollama.image.model"}])
    put(folder / "manifests/e", b"[" * 100_000)
    put(home / ".lmstudio/settings.json", b"[]")
    assert names(home) == []


def test_a_link_costs_no_space_and_outlives_the_original(tmp_path: Path) -> None:
    source = put(tmp_path / "a.gguf")
    done = import_model(source, tmp_path / "models")
    assert (done.mode, done.path) == ("linked", tmp_path / "models/imported/a.gguf")
    assert done.path.samefile(source)
    assert import_model(source, tmp_path / "models").mode == "linked"  # again is harmless
    source.unlink()
    assert done.path.read_bytes() == GGUF


def test_another_disk_gets_a_link_by_name_and_nothing_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "a.gguf")

    def other_disk(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", other_disk)
    done = import_model(source, tmp_path / "models")
    assert done.mode == "linked by name" and done.path.readlink() == source
    monkeypatch.setattr(Path, "rename", other_disk)
    other = put(tmp_path / "b.gguf")
    with pytest.raises(DownloadError, match="would have to be copied"):
        import_model(other, tmp_path / "models", move=True)
    assert other.exists()


def test_all_parts_are_taken(tmp_path: Path) -> None:
    for number in (1, 2):
        put(tmp_path / f"s-0000{number}-of-00002.gguf")
    done = import_model(tmp_path / "s-00002-of-00002.gguf", tmp_path / "models", move=True)
    assert done.path.name == "s-00001-of-00002.gguf" and done.mode == "moved"
    assert len(list((tmp_path / "models/imported").iterdir())) == 2
    put(tmp_path / "t-00001-of-00002.gguf")
    with pytest.raises(ModelFileError, match="t-00002-of-00002"):
        import_model(tmp_path / "t-00001-of-00002.gguf", tmp_path / "models")


def test_a_nameless_blob_gets_a_name_and_its_checksum(tmp_path: Path) -> None:
    blob = put(tmp_path / f"sha256-{HEX}")
    done = import_model(blob, tmp_path / "models", name="qwen3-30b", checksum=f"sha256:{HEX}")
    assert done.path.name == "qwen3-30b.gguf"
    record = record_of(done.path)
    assert record is not None and record.checksum == f"sha256:{HEX}"
    odd = import_model(put(tmp_path / "x"), tmp_path / "models", name="../../etc/pass\x1bwd.gguf")
    assert odd.path.parent == tmp_path / "models/imported" and "\x1b" not in odd.path.name


def test_what_is_in_the_way_stays(tmp_path: Path) -> None:
    other = put(tmp_path / "models/imported/a.gguf", b"GGUF other")
    with pytest.raises(DownloadError, match="another file of that name"):
        import_model(put(tmp_path / "a.gguf"), tmp_path / "models")
    assert other.read_bytes() == b"GGUF other"
    with pytest.raises(ModelFileError, match="not a GGUF"):
        import_model(put(tmp_path / "b.gguf", b"text"), tmp_path / "models")
    with pytest.raises(ModelFileError):
        import_model(tmp_path, tmp_path / "models")


def test_crowded_folders_are_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_local, "MAX_FOUND", 3)
    for number in range(10):
        put(home / f".lmstudio/models/{number}.gguf")
    (home / ".lmstudio/models/loop").symlink_to(home)
    assert len(find_models({}, home)) == 3
    assert os.listdir(home / ".lmstudio/models")  # noqa: PTH208
