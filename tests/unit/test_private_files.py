"""What is ours is this user's alone, also what an older version, a repair or a hand left open to others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ktchat.common import paths
from ktchat.common.files import write_text
from ktchat.store.conversation import Conversation
from ktchat.store.store import Store


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture(autouse=True)
def _nothing_said_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    paths.tightened()


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    folder = tmp_path / "ktchat"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def test_a_folder_that_others_can_read_is_tightened_and_said_once(open_to_all: Path) -> None:
    assert paths.private_folder(open_to_all) == open_to_all
    assert mode(open_to_all) == 0o700
    (said,) = paths.tightened()
    assert str(open_to_all) in said
    paths.private_folder(open_to_all)
    assert paths.tightened() == []


def test_folders_that_are_not_ours_alone_stay(
    open_to_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = open_to_all / "user"
    user.mkdir(0o755)
    monkeypatch.setenv("HOME", str(user))
    open_to_all.chmod(0o755)  # above the home folder
    paths.private_folder(open_to_all)
    paths.private_folder(user)
    sticky = open_to_all / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    paths.private_folder(sticky)
    assert [mode(one) for one in (open_to_all, user, sticky)] == [0o755, 0o755, 0o1777]
    monkeypatch.setattr(os, "geteuid", lambda: -1)  # of somebody else
    other = open_to_all / "other"
    other.mkdir()
    other.chmod(0o755)
    paths.private_folder(other)
    assert mode(other) == 0o755 and paths.tightened() == []


def test_a_file_of_sessions_that_others_can_read_is_tightened_and_said(open_to_all: Path) -> None:
    path = open_to_all / "ktchat.db"
    first = Store(path)
    first.save_conversation(Conversation(title="one"))
    first.close()
    path.chmod(0o644)
    open_to_all.chmod(0o755)
    first.notices.clear()
    later = Store(path)
    later.sessions()
    assert mode(path) == 0o600 and mode(open_to_all) == 0o700
    said = " ".join(later.notices)
    assert said.count("could be read by others") == 2 and f"{path} could" in said
    later.close()
    again = Store(path)
    again.sessions()
    assert again.notices == []
    again.close()


@pytest.mark.parametrize("linked", [True, False])
def test_what_a_repair_keeps_is_for_this_user_only(
    open_to_all: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    path = open_to_all / "ktchat.db"
    path.write_bytes(b"this is no database" * 1000)
    path.chmod(0o644)
    path.with_name("ktchat.db-journal").write_bytes(b"x")
    path.with_name("ktchat.db-journal").chmod(0o644)
    if not linked:

        def refuse(self: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    store = Store(path)
    assert store.sessions() == []
    store.close()
    kept = list(open_to_all.glob("ktchat.db*"))
    assert len(kept) >= 2
    assert {one.name: mode(one) for one in kept} == {one.name: 0o600 for one in kept}


def test_an_export_is_for_this_user_only_whatever_was_there(open_to_all: Path) -> None:
    path = open_to_all / "session.md"
    path.write_text("old")
    path.chmod(0o666)
    write_text(path, "new")
    assert mode(path) == 0o600
