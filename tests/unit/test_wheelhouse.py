"""The folder of wheels for a machine without a network: what is in it, how large, and for which Python."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

import check_wheels  # noqa: E402
import wheel_files  # noqa: E402
import wheelhouse  # noqa: E402


def make_wheel(folder: Path, file: str, asks: tuple[str, ...] = (), **files: bytes) -> Path:
    """A small wheel; a double underscore in a keyword stands for a slash, a single one for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "-".join(file.split("-")[:2]) + ".dist-info"
    lines = [f"Name: {file.split('-')[0]}", *(f"Requires-Dist: {text}" for text in asks)]
    with zipfile.ZipFile(folder / file, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n\nRequires-Dist: not-a-header\n")
        archive.writestr(f"{info}/RECORD", "stale")
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return folder / file


def fake_pip(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, ...]], size: int = 10) -> None:
    """pip that makes small wheels instead of fetching or building any."""

    def pip(command: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        calls.append((command, *arguments, *(environment or {}).values()))
        option = "--dest" if command == "download" else "--wheel-dir"
        folder = Path(arguments[arguments.index(option) + 1])
        if command == "wheel" and "own" in folder.name:
            make_wheel(folder, "ktchat-0.1.0-py3-none-linux_x86_64.whl", ("numpy>=2",))
        elif command == "wheel":
            make_wheel(folder, "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl", ("numpy",))
        elif "--no-deps" in arguments:
            file = "flashinfer_python-0.6.16-py3-none-any.whl"
            make_wheel(folder, file, ("nvidia-cutlass-dsl>=4.5", "torch"))
        else:
            make_wheel(folder, "numpy-2.4.6-cp312-cp312-linux_x86_64.whl", data=bytes(size))
            make_wheel(folder, "hf_xet-1.8.0-cp37-abi3-linux_x86_64.whl")
            for path in (Path(a) for a in arguments if a.endswith(".whl")):
                (folder / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(wheelhouse, "_pip", pip)


@pytest.fixture
def small_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with as good as nothing to copy."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "README.md").write_text("x")
    monkeypatch.setattr(wheelhouse, "ROOT", root)
    monkeypatch.setattr(wheelhouse, "SOURCES", ("README.md",))
    return root


def test_a_wheelhouse_is_whole_hashed_and_says_what_is_left_out(
    small_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    fake_pip(monkeypatch, calls)
    out = tmp_path / "out"
    manifest = wheelhouse.gather("3.12", out, gpu=True, llama="portable")
    files = {path.name for path in out.glob("*.whl")}
    assert files == {wheel["file"] for wheel in manifest["wheels"]}
    assert not any(name.startswith(("hf_xet", "torch", "triton")) for name in files)
    for wheel in manifest["wheels"]:
        content = (out / wheel["file"]).read_bytes()
        assert (wheel["sha256"], wheel["bytes"]) == (
            hashlib.sha256(content).hexdigest(),
            len(content),
        )
    assert manifest["bytes"] == sum(path.stat().st_size for path in out.glob("*.whl"))
    assert list(manifest["left_out"]) == ["nvidia-cutlass-dsl", "torch"]
    lines = (out / "requirements.txt").read_text().splitlines()
    assert len(lines) == len(files)
    assert any(line.startswith("llama-cpp-python==0.3.36 --hash=sha256:") for line in lines)
    build = next(call for call in calls if call[0] == "wheel" and "llama" in call[-2])
    assert "--no-cache-dir" in build
    assert "-DGGML_NATIVE=OFF" in build[-1]


def test_a_second_gathering_replaces_the_first_and_compiles_nothing_again(
    small_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    fake_pip(monkeypatch, calls)
    out = tmp_path / "out"
    wheelhouse.gather("3.12", out, gpu=True, llama="this-cpu")
    manifest = wheelhouse.gather("3.12", out, gpu=False, llama="this-cpu")
    assert manifest["left_out"] == {}
    assert not list(out.glob("flashinfer*"))
    assert sum("llama-cpp-python==0.3.36" in call for call in calls) == 1


def test_other_peoples_files_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine-1-py3-none-any.whl").write_text("x")
    with pytest.raises(wheelhouse.WheelhouseError, match="empty folder"):
        wheelhouse.gather("3.12", tmp_path, gpu=False, llama="portable")
    assert [path.name for path in tmp_path.iterdir()] == ["mine-1-py3-none-any.whl"]


def test_a_wheelhouse_above_the_bound_fails_with_figures_and_leaves_nothing(
    small_checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_pip(monkeypatch, [], size=40_000)
    monkeypatch.setattr(wheelhouse, "LIMIT_BYTES", 20_000)
    out = tmp_path / "out"
    assert wheelhouse.main(["--python", "3.12", "--out", str(out), "--llama", "this-cpu"]) == 1
    assert "numpy 0.0" in capsys.readouterr().err
    assert not out.exists()


def test_a_dependency_that_nobody_gave_a_reason_for_is_an_error(tmp_path: Path) -> None:
    make_wheel(tmp_path, "a-1-py3-none-any.whl", ("surprise>=1", "b; extra == 'x'"))
    with pytest.raises(wheelhouse.WheelhouseError, match="asks for surprise"):
        wheelhouse.left_out(tmp_path, "3.12")


def test_dependencies_are_those_of_the_target_python(tmp_path: Path) -> None:
    asks = (
        "old; python_version < '3.12'",
        "New_One>=2; python_version >= '3.12'",
        "x; extra == 'y'",
    )
    wheel = make_wheel(tmp_path, "a-1-py3-none-any.whl", asks)
    assert wheel_files.asked(wheel, "3.12") == {"new-one"}
    assert wheel_files.asked(wheel, "3.11") == {"old"}


def test_llama_keeps_one_of_each_library_and_a_true_record(tmp_path: Path) -> None:
    kept = {"llama_cpp/llama.py", "llama_cpp/lib/libllama.so", "llama_cpp/lib/libggml-cpu.so.0"}
    gone = {"lib/libllama.so", "llama_cpp/lib/libggml.so.0.25.3", "llama_cpp/lib/libmtmd.so"}
    gone |= {"include/ggml.h", "llama_cpp/lib/libllama.so.0", "bin/tool"}
    wheel = make_wheel(tmp_path, "llama_cpp_python-1-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        for name in kept | gone:
            archive.writestr(name, name)
    small = wheel_files.trim(wheel, wheelhouse.LLAMA_KEPT, tmp_path / "small")
    with zipfile.ZipFile(small) as archive:
        names = set(archive.namelist())
        record = archive.read("llama_cpp_python-1.dist-info/RECORD").decode()
    assert kept <= names
    assert not gone & names
    assert {row[0] for row in csv.reader(io.StringIO(record))} == names


def test_the_newest_symbol_versions_are_found(tmp_path: Path) -> None:
    library = b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.17\0GLIBCXX_3.4.9\0GLIBCXX_3.4.30\0printf\0"
    wheel = make_wheel(tmp_path, "a-1-py3-none-linux_x86_64.whl", **{"a__liba_so": library})
    assert wheel_files.needs([wheel]) == {"GLIBC": "2.34", "GLIBCXX": "3.4.30"}


@pytest.mark.parametrize("python", ["2.7", "3.10", "3.12.1", "3.12; rm"])
def test_a_python_that_ktchat_does_not_run_on_is_wrong_usage(python: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        wheelhouse.main(["--python", python])


def test_every_package_that_is_gathered_is_pinned() -> None:
    for package in (wheelhouse.LLAMA, wheelhouse.FLASHINFER, *wheelhouse.FLASHINFER_NEEDS):
        assert wheelhouse.pinned(package)
    with pytest.raises(wheelhouse.WheelhouseError, match="no version"):
        wheelhouse.pinned("no-such-package")


def test_the_gpu_check_carries_little_and_no_application(
    small_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []

    def pip(command: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        calls.append((command, *arguments))
        folder = Path(
            arguments[arguments.index("--dest" if command == "download" else "--wheel-dir") + 1]
        )
        if command == "wheel":
            make_wheel(
                folder, "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl", ("numpy", "jinja2")
            )
            return
        for name in check_wheels.CARRIED:
            make_wheel(folder, f"{name.replace('-', '_')}-1-py3-none-any.whl", ("numpy", "pyyaml"))

    monkeypatch.setattr(wheelhouse, "_pip", pip)
    monkeypatch.setattr(check_wheels, "tree_bytes", lambda: 20_000_000)
    out = tmp_path / "out"
    names = {wheel.name for wheel in check_wheels.gather("3.12", out, "this-cpu")}
    assert names == {*check_wheels.CARRIED, "llama-cpp-python"}
    assert not names & {"textual", "flashinfer-python", "ktchat", "torch", "triton"}
    assert len(list(out.iterdir())) == len(names)
    assert "--no-deps" in calls[-1]
    monkeypatch.setattr(check_wheels, "tree_bytes", lambda: wheelhouse.LIMIT_BYTES)
    with pytest.raises(wheelhouse.WheelhouseError, match="0 MB is the bound"):
        check_wheels.gather("3.12", out, "this-cpu")


def test_what_git_keeps_is_counted_as_the_tree() -> None:
    assert 5e6 < check_wheels.tree_bytes() < 30e6


def fits(file: str, python: tuple[int, int]) -> bool:
    """Whether pip of that Python takes this wheel on Linux with glibc 2.34."""
    platforms = wheelhouse.platforms()
    tags: set[Tag] = set(cpython_tags(python, platforms=platforms))
    tags |= set(compatible_tags(python, f"cp{python[0]}{python[1]}", platforms))
    return bool(parse_wheel_filename(file)[3] & tags)


@pytest.mark.parametrize(
    "file", ["a-1-py3-none-linux_x86_64.whl", "a-1-cp39-abi3-manylinux_2_28_x86_64.whl"]
)
def test_the_platforms_asked_for_are_those_that_pip_takes(file: str) -> None:
    assert fits(file, (3, 12))
    assert not fits("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", (3, 12))
    assert not fits("a-1-cp312-cp312-manylinux_2_39_x86_64.whl", (3, 12))
