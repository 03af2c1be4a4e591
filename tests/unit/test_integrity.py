"""Records of model files, their verification and removal; journals; manifests."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from engine.downloads import manifest
from engine.downloads.integrity import (
    check_files,
    checksum_of,
    record_of,
    remove,
    write_record,
    write_unchecked_record,
)
from engine.downloads.journal import (
    MAX_BLOCK,
    MIN_BLOCK,
    Journal,
    JournalHead,
    block_size,
    bytes_kept,
)
from engine.hub.errors import DamagedModelError, DownloadBusyError, DownloadError
from engine.hub.names import HubFile, HubModel

HEAD = JournalHead("https://hub/x", "c" * 40, 1_000_000, "sha256:" + "a" * 64, MIN_BLOCK)
DIGEST = "d" * 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model in two files, recorded."""
    for number in (1, 2):
        part = tmp_path / f"m-0000{number}-of-00002.gguf"
        part.write_bytes(os.urandom(10_000))
        write_record(part, checksum_of(part, "sha256"))
    return tmp_path / "m-00001-of-00002.gguf"


# Verification


def test_an_unchanged_model_is_not_read_again_unless_forced(model: Path) -> None:
    assert [part.hashed for part in check_files(model)] == [False, False]
    assert [part.hashed for part in check_files(model, force=True)] == [True, True]


def test_a_touched_model_is_read_once(model: Path) -> None:
    os.utime(model)
    assert [part.hashed for part in check_files(model)] == [True, False]
    assert [part.hashed for part in check_files(model)] == [False, False]


def test_one_bit_is_found_in_whichever_file(model: Path) -> None:
    second = model.with_name("m-00002-of-00002.gguf")
    data = bytearray(second.read_bytes())
    data[7777] ^= 1
    second.write_bytes(data)
    with pytest.raises(DamagedModelError, match="m-00002-of-00002"):
        check_files(model)
    with pytest.raises(DamagedModelError):  # the failure is not recorded as a success
        check_files(model)


def test_a_missing_part_is_named(model: Path) -> None:
    model.with_name("m-00002-of-00002.gguf").unlink()
    with pytest.raises(DownloadError, match=r"m-00002-of-00002\.gguf cannot be read"):
        check_files(model)


def test_a_file_without_a_record_is_recorded_in_the_models_folder_only(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for folder in (tmp_path, tmp_path / "models"):
        path = folder / "a.gguf"
        path.write_bytes(b"GGUF")
        (checked,) = check_files(path, folder=tmp_path / "models")
        assert checked.hashed and checked.checksum == checksum_of(path, "sha256")
    assert record_of(tmp_path / "a.gguf") is None
    assert record_of(tmp_path / "models" / "a.gguf") is not None


def test_a_promised_checksum_is_checked_first(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    write_unchecked_record(path, checksum_of(path, "sha256"))
    assert [part.hashed for part in (*check_files(path), *check_files(path))] == [True, False]
    write_unchecked_record(path, "sha256:" + "0" * 64)
    with pytest.raises(DamagedModelError):
        check_files(path)


def test_damaged_records_count_as_none(model: Path) -> None:
    record = Path(f"{model}.origin.json")
    good = record.read_text()
    for text in (
        "",
        "{}",
        "[]",
        "nonsense",
        "[" * 5000,
        good[:-5],
        good.replace('"size":', '"s":'),
    ):
        record.write_text(text)
        assert record_of(model) is None
    record.write_text(good.replace(": 10000", ': "10000"'))
    assert record_of(model) is None


def test_progress_reaches_the_whole(model: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_files(model, force=True, report=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20_000, 20_000) and sorted(seen) == seen


def test_removal_takes_everything_that_belongs_to_it(model: Path) -> None:
    for ending in (".part", ".part.journal"):
        Path(f"{model}{ending}").write_bytes(b"x" * 100)
    other = model.with_name("other.gguf")
    other.write_bytes(b"GGUF")
    assert remove(model) > 20_200
    assert list(model.parent.iterdir()) == [other]


# Journals


def test_blocks_are_many_and_neither_tiny_nor_huge() -> None:
    assert block_size(1) == MIN_BLOCK and block_size(1 << 45) == MAX_BLOCK
    for size in (10**8, 10**9, 10**10, 4 * 10**11):
        block = block_size(size)
        assert MIN_BLOCK <= block <= MAX_BLOCK and block & (block - 1) == 0
        assert 4 * block < size / 100 or block == MIN_BLOCK


def test_a_journal_remembers(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, HEAD)
    for number in (0, 3, 15):
        journal.record(number, DIGEST)
    journal.set_etag('"x"')
    journal.drop(3)
    journal.close()
    again = Journal(path, HEAD)
    assert (again.digests, again.etag) == ({0: DIGEST, 15: DIGEST}, '"x"')
    again.close()
    assert bytes_kept(path) == MIN_BLOCK + 1_000_000 - 15 * MIN_BLOCK


def test_blocks_of_another_file_are_forgotten(tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "j"
    for other in (
        replace(HEAD, checksum="sha256:" + "b" * 64),
        replace(HEAD, size=999_999),
        replace(HEAD, block=2 * MIN_BLOCK),
    ):
        journal = Journal(path, HEAD)
        journal.record(1, DIGEST)
        journal.close()
        changed = Journal(path, other)
        assert changed.digests == {}
        changed.close()
    moved = Journal(path, replace(HEAD))
    moved.record(1, DIGEST)
    moved.close()
    same = Journal(path, replace(HEAD, commit="e" * 40, url="https://mirror/x"))
    assert same.digests == {1: DIGEST}  # the checksum decides, not where it comes from
    same.close()


def test_a_torn_or_damaged_journal_keeps_what_makes_sense(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, HEAD)
    for number in range(16):
        journal.record(number, f"{number:064x}")
    journal.close()
    whole = path.read_bytes()
    chance = random.Random(5)
    for _ in range(300):
        data = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(3)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        assert 0 <= bytes_kept(path) <= HEAD.size
        damaged = Journal(path, HEAD)
        assert set(damaged.digests) <= set(range(16))
        damaged.record(2, DIGEST)
        damaged.close()
        again = Journal(path, HEAD)
        assert again.digests[2] == DIGEST
        again.close()


def test_a_journal_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "j").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        Journal(tmp_path / "j", HEAD)
    assert not (tmp_path / "victim").exists()


# Manifests


def a_model() -> HubModel:
    file = HubFile("own/m", "c" * 40, "Q4/m-Q4_0.gguf", 100, "sha256:" + "a" * 64)
    return HubModel("own/m", "c" * 40, "Q4_0", (file,))


def test_an_unfinished_download_is_found_again(tmp_path: Path) -> None:
    path = manifest.manifest_path(tmp_path, a_model())
    manifest.make_folder(tmp_path, path.parent)
    manifest.write(path, a_model())
    assert [found.model for found in manifest.unfinished(tmp_path)] == [a_model()]
    path.rename(path.with_name("elsewhere.download.json"))
    assert manifest.unfinished(tmp_path) == []


def test_a_hostile_manifest_names_nothing_outside(tmp_path: Path) -> None:
    path = manifest.manifest_path(tmp_path, a_model())
    manifest.make_folder(tmp_path, path.parent)
    manifest.write(path, a_model())
    good = json.loads(path.read_text())
    changes = [{"path": "../../x.gguf"}, {"repo": "../.."}, {"size": -1}, {"size": "1"}]
    for change in [*changes, {"commit": 5}, {"extra": 1}]:
        bad = {**good, "files": [{**good["files"][0], **change}]}
        path.write_text(json.dumps(bad))
        assert manifest.read(path) is None and manifest.unfinished(tmp_path) == []
    for text in ("", "[]", "{}", "null", '{"files": 5}', "[" * 9999):
        path.write_text(text)
        assert manifest.read(path) is None


def test_one_holds_a_download_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "m.download.json"
    assert not manifest.is_held(path)
    with manifest.held(path):
        assert manifest.is_held(path)
        with pytest.raises(DownloadBusyError), manifest.held(path):
            pass
    assert not manifest.is_held(path) and list(tmp_path.iterdir()) == []
