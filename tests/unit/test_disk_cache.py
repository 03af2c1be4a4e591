"""Files of the KV cache on the disk: believed only when they are exactly what was written, and bounded."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.disk_cache import folder as folders
from engine.disk_cache import identity, record
from engine.disk_cache.chain import Chain, Layout
from engine.disk_cache.folder import CacheFolder, ModelFolder
from engine.disk_cache.record import Record, Stopped
from engine.downloads.integrity import write_record

KEY = bytes(range(32))
PAYLOAD = np.arange(48, dtype=np.uint8)
LAYOUT = Layout(KEY, 4, len(PAYLOAD), lambda position: 0, 8, keeps_state=False)
PAGE = Chain(LAYOUT, [5, 6, 7, 8, 9]).page(0)
MAKES_FILE: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: None,
}


def write(folder: Path, page: Record = PAGE) -> Path:
    page.write(folder, [PAYLOAD[:10], PAYLOAD[10:]], lambda: False)
    return folder / page.name


def test_what_was_written_is_read_by_this_user_only(tmp_path: Path) -> None:
    model = CacheFolder(tmp_path / "a" / "kv").model(KEY)
    model.make()
    path = write(model.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(p.stat().st_mode) for p in (model.path, model.path.parent)] == [0o700] * 2
    data = PAGE.read(model.path)
    assert data is not None and np.array_equal(data, PAYLOAD)
    model.path.parent.chmod(0o755)
    model.make()
    assert stat.S_IMODE(model.path.parent.stat().st_mode) == 0o700


def test_every_cut_is_no_record_and_goes(tmp_path: Path) -> None:
    whole = write(tmp_path).read_bytes()
    for length in range(len(whole)):
        path = tmp_path / PAGE.name
        path.write_bytes(whole[:length])
        assert PAGE.read(tmp_path) is None, length
        assert not path.exists()
    (tmp_path / PAGE.name).write_bytes(whole + b"\0")
    assert PAGE.read(tmp_path) is None


def test_every_flipped_bit_is_no_record(tmp_path: Path) -> None:
    whole = write(tmp_path).read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / PAGE.name).write_bytes(changed)
        assert PAGE.read(tmp_path) is None, bit


@pytest.mark.parametrize(
    "other",
    [
        replace(PAGE, key=bytes(32)),
        replace(PAGE, parent=bytes(32)),
        replace(PAGE, position=4),
        replace(PAGE, tokens=(5, 6, 7, 9)),
        replace(PAGE, kind="end"),
    ],
    ids=["another model", "other tokens before", "another place", "other tokens", "another kind"],
)
def test_a_sound_file_of_something_else_is_not_taken(other: Record, tmp_path: Path) -> None:
    write(tmp_path, other).rename(tmp_path / PAGE.name)
    assert PAGE.read(tmp_path) is None


def test_a_file_of_another_version_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setattr(record, "_VERSION", 2)
    assert PAGE.read(tmp_path) is None


@pytest.mark.parametrize("kind", MAKES_FILE)
def test_what_is_no_file_is_not_read(kind: str, tmp_path: Path) -> None:
    MAKES_FILE[kind](tmp_path / PAGE.name)
    assert PAGE.read(tmp_path) is None


def test_names_stand_for_all_tokens_before() -> None:
    one, other = (Chain(LAYOUT, [first, *range(11)]) for first in (1, 2))
    names = [c.page(n).name for c in (one, other) for n in range(3)]
    names += [c.end(9).name for c in (one, other)] + [one.end(8).name, one.end(10).name]
    assert len(set(names)) == len(names)
    longer = Chain(LAYOUT, [1, *range(11), 5, 5])
    assert [longer.page(n) for n in range(3)] == [one.page(n) for n in range(3)]


def test_a_message_stops_the_writing_and_nothing_stays(tmp_path: Path) -> None:
    calls = iter([False, True])
    with pytest.raises(Stopped):
        PAGE.write(tmp_path, [PAYLOAD], lambda: next(calls))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.disk_cache import record
from tests.unit.test_disk_cache import PAGE, PAYLOAD
write = os.write
for stop in range(4):
    if not os.fork():
        calls = iter(range(9))
        def killed(handle, data):
            if next(calls) == stop:
                write(handle, bytes(data)[:5])
                os.kill(os.getpid(), signal.SIGKILL)
            return write(handle, data)
        os.write = killed
        PAGE.write(Path(sys.argv[1]), [PAYLOAD[:10], PAYLOAD[10:]], lambda: False)
        os._exit(1)
    assert os.wait()[1] == signal.SIGKILL
    assert PAGE.read(Path(sys.argv[1])) is None
"""


def test_killed_in_the_middle_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelFolder(tmp_path / "model")
    model.make()
    subprocess.run([sys.executable, "-c", KILLED, model.path], check=True)
    assert len(list(model.path.glob("*.part"))) == 4
    model.remove_parts()
    assert len(list(model.path.glob("*.part"))) == 4, "another program may be writing them"
    monkeypatch.setattr(folders, "_DEAD_SECONDS", -1.0)
    model.remove_parts()
    assert not list(model.path.iterdir())


# What the folder takes, and what goes first.


def written(cache: CacheFolder, tokens: list[int], now_ns: int, session: str = "s") -> list[Record]:
    """The pages of a sequence, used at that time."""
    model, chain = cache.model(KEY), Chain(LAYOUT, tokens)
    pages = [chain.page(number) for number in range(len(tokens) // 4)]
    model.make()
    model.note(session, [page.name for page in pages])
    for page in pages:
        page.write(model.path, [PAYLOAD], lambda: False)
    model.touch(pages, now_ns)
    return pages


def there(cache: CacheFolder, pages: list[Record]) -> list[bool]:
    return [cache.model(KEY).has(page) for page in pages]


def test_the_end_of_what_was_not_used_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "AHEAD", 1 << 20)
    cache, second = CacheFolder(tmp_path), 10**9
    old = written(cache, list(range(12)), 1000 * second)
    new = written(cache, list(range(100, 112)), 2000 * second)
    size = PAGE.size
    assert cache.used() == 6 * size
    assert cache.make_room(size, 5 * size, 1500 * second) == size
    assert there(cache, old) == [True, False, False] and there(cache, new) == [True] * 3
    assert cache.make_room(3 * size, 5 * size, 1500 * second) == 2 * size, "what is in use stays"
    assert there(cache, old) == [False] * 3 and there(cache, new) == [True] * 3


def test_the_default_budget_is_a_part_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CacheFolder(tmp_path / "not" / "there")
    monkeypatch.setattr(cache, "_free", lambda: 30 * 10**9)
    assert cache.budget(None) == 3 * 10**9
    monkeypatch.setattr(cache, "_free", lambda: 30 * 10**12)
    assert (cache.budget(None), cache.budget(5)) == (10**10, 5)
    assert cache.has_disk_for(1)
    monkeypatch.setattr(cache, "_free", lambda: folders.SPARE)
    assert not cache.has_disk_for(1)


def test_a_session_takes_along_only_what_nobody_shares(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path)
    common = list(range(8))
    first = written(cache, [*common, 50, 51, 52, 53], 1, "../../first")
    second = written(cache, [*common, 60, 61, 62, 63], 2, "second")
    cache.forget_sessions(all_but=["second"])
    assert there(cache, first) == [True, True, False] and there(cache, second) == [True] * 3
    (cache.model(KEY).path / "0.session").write_bytes(b"\xff\0" * 9)
    cache.forget_sessions(all_but=[])
    assert not cache.used() and not cache.model(KEY).path.exists()


def test_clearing_says_what_it_freed(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path)
    written(cache, list(range(12)), 1)
    assert cache.clear() == 3 * PAGE.size
    assert (cache.used(), cache.clear()) == (0, 0)


# Whose they are.


def test_a_model_is_its_files_and_what_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(1 << 20))
    os.utime(path, (5, 5))
    keys = [identity.model_key([path], ["f16"]), identity.model_key([path], ["q8"])]
    assert identity.model_key([path], ["f16"]) == keys[0]
    with path.open("r+b") as file:
        file.seek(1 << 19)
        file.write(bytes([1] * 20000))
    os.utime(path, (5, 5))
    keys.append(identity.model_key([path], ["f16"]))
    os.utime(path, (6, 6))
    keys.append(identity.model_key([path], ["f16"]))
    write_record(path, "sha256:ab")
    keys.append(identity.model_key([path], ["f16"]))
    monkeypatch.setattr(identity, "code_version", lambda: "other kernels")
    keys.append(identity.model_key([path], ["f16"]))
    assert len(set(keys)) == len(keys)
