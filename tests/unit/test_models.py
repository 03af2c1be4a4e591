"""Which models are found, and what is said of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.common import folders
from engine.errors import ModelFileError
from ktchat.common import paths
from ktchat.library import models
from tests.support.tiny import tiny_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with a models folder and without the guide."""
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "guide_model", lambda: None)
    (tmp_path / "models").mkdir()
    return tmp_path


def found(*recent: str) -> list[str]:
    return [Path(path).name for path, _ in models.find_models(recent)]


def test_models_are_found_in_folders_the_guide_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = home / "guide.gguf"
    for name in ("b.gguf", "a.gguf", "notes.txt", "sub/deep/c.gguf"):
        path = home / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    guide.touch()
    monkeypatch.setattr(paths, "guide_model", lambda: guide)
    other = home / "elsewhere.gguf"
    other.touch()
    listed = list(models.find_models([str(other), str(home / "models" / "a.gguf")]))
    assert [(Path(path).name, source) for path, source in listed] == [
        ("guide.gguf", "guide"),
        ("a.gguf", "folder"),
        ("b.gguf", "folder"),
        ("c.gguf", "folder"),
        ("elsewhere.gguf", "recent"),
    ]


def test_of_a_split_model_the_first_part_is_listed(home: Path) -> None:
    for number in (1, 2, 3):
        (home / "models" / f"big-{number:05}-of-00003.gguf").touch()
    assert found() == ["big-00001-of-00003.gguf"]


def test_a_file_is_listed_once_under_whatever_name(home: Path) -> None:
    (home / "models" / "a.gguf").touch()
    (home / "models" / "link.gguf").symlink_to(home / "models" / "a.gguf")
    assert found(str(home / "models" / ".." / "models" / "a.gguf")) == ["a.gguf"]


def test_folders_in_circles_and_great_depth_end(home: Path) -> None:
    deep = home / "models"
    for _ in range(folders.MODELS_DEPTH + 3):
        deep = deep / "d"
        deep.mkdir()
        (deep / "m.gguf").touch()
    (home / "models" / "loop").symlink_to(home / "models")
    assert len(found()) == folders.MODELS_DEPTH


def test_a_crowded_folder_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_ENTRIES", 10)
    (home / "models" / "a.gguf").touch()
    crowded = home / "models" / "crowded"
    crowded.mkdir()
    for number in range(20):
        (crowded / f"{number}.gguf").touch()
    assert found() == ["a.gguf"]


def test_without_a_models_folder_there_are_none(home: Path) -> None:
    (home / "models").rmdir()
    assert found() == []


def test_a_model_is_described_by_its_header(home: Path) -> None:
    path = tiny_model("qwen3moe", home)
    entry = models.describe(str(path))
    assert entry.error == ""
    assert (entry.architecture, entry.runtime) == ("qwen3moe", "native")
    assert entry.size == path.stat().st_size
    assert entry.name and entry.quantisation


def test_a_broken_file_says_why(home: Path) -> None:
    whole = tiny_model("qwen3moe", home).read_bytes()
    contents = {
        "empty.gguf": b"",
        "junk\x1b[31m.gguf": os.urandom(3000),
        "cut.gguf": whole[: len(whole) // 2],
        "header.gguf": whole[:500],
    }
    for name, data in contents.items():
        path = home / "models" / name
        path.write_bytes(data)
        entry = models.describe(str(path))
        assert entry.error and entry.size == len(data)
        assert not set(entry.error + entry.name + entry.shown_path) & set("\x1b\n")
    assert models.describe(str(home / "absent.gguf")).error
    assert models.describe(str(home / "models")).error


def test_the_model_to_start_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, guide = home / "last.gguf", home / "guide.gguf"
    with pytest.raises(ModelFileError, match="guide"):
        models.default_model(str(last))
    guide.touch()
    monkeypatch.setattr(paths, "guide_model", lambda: guide)
    assert models.default_model(str(last)) == models.default_model() == str(guide)
    last.touch()
    assert models.default_model(str(last)) == str(last)


def test_everything_is_under_one_folder_when_that_is_set(home: Path) -> None:
    assert paths.database() == home / "ktchat.db"
    assert paths.settings_file() == home / "settings.toml"
    assert paths.models_folder() == home / "models"


def test_the_folders_of_the_system_are_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KTCHAT_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert paths.database() == tmp_path / "data" / "ktchat" / "ktchat.db"
    assert paths.settings_file() == tmp_path / "config" / "ktchat" / "settings.toml"


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that can be opened."""
    return tiny_model("qwen3moe", tmp_path_factory.mktemp("weights")).read_bytes()


def test_a_link_out_of_the_folder_is_listed_and_not_followed(home: Path, weights: bytes) -> None:
    outside = home / "else" / "secret.gguf"
    outside.parent.mkdir()
    outside.write_bytes(weights)
    link = home / "models" / "link.gguf"
    link.symlink_to(outside)
    assert set(found(str(outside))) == {"link.gguf", "secret.gguf"}  # it hides nothing
    entry = models.describe(str(link), models.Source.FOLDER)
    assert "link out of the models folder" in entry.error and str(outside) in entry.error
    assert entry.size == 0 and not entry.architecture
    with pytest.raises(ModelFileError, match="link out of the models folder"):
        models.model_named("link")
    assert models.model_named(str(link)) == str(link)  # by its path: the person asks for it
    assert not models.describe(str(link)).error


def test_links_within_the_folder_and_imported_ones_are_followed(home: Path, weights: bytes) -> None:
    model = home / "models" / "a.gguf"
    model.write_bytes(weights)
    (home / "models" / "imported").mkdir()
    (home / "models" / "b.gguf").symlink_to(model)
    taken = home / "models" / "imported" / "c.gguf"
    (home / "c.gguf").write_bytes(model.read_bytes())
    taken.symlink_to(home / "c.gguf")
    for path in (home / "models" / "b.gguf", taken):
        assert not models.describe(str(path), models.Source.FOLDER).error


def test_the_folder_itself_may_be_a_link(home: Path, weights: bytes) -> None:
    big = home / "big"
    (home / "models").rename(big)
    (home / "models").symlink_to(big)
    (big / "a.gguf").write_bytes(weights)
    assert found() == ["a.gguf"]
    assert not models.describe(str(home / "models" / "a.gguf"), models.Source.FOLDER).error
