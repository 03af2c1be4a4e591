"""The hub's token goes to a mirror only after a question."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.hub.access import HubAccess
from engine.hub.client import Hub, access_from_environment
from engine.hub.errors import TokenUnaskedError
from ktchat.library.downloads import Downloads
from ktchat.library.mirrors import Mirrors, open_hub

TOKEN = "hf_" + "a" * 30
MIRROR = "https://mirror.example/hub"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", MIRROR)


@pytest.mark.parametrize(
    ("endpoint", "asks"),
    [
        ("https://huggingface.co", False),
        ("https://HUGGINGFACE.co:443", False),
        ("https://hf.co", False),
        ("http://127.0.0.1:8080", False),
        ("https://localhost", False),
        ("http://mirror.example", False),  # never in clear: there is nothing to ask
        ("http://huggingface.co", False),
        (MIRROR, True),
        ("https://huggingface.co:8443", True),
        ("https://huggingface.co.mirror.example", True),
        ("https://127.0.0.2", True),
    ],
)
def test_it_is_asked_for_who_would_get_the_token(endpoint: str, asks: bool) -> None:
    assert HubAccess(endpoint, TOKEN).asks is asks
    assert not HubAccess(endpoint).asks


def test_nothing_is_sent_before_the_answer() -> None:
    with pytest.raises(TokenUnaskedError, match=r"mirror\.example") as refusal:
        Hub().search("x")
    assert TOKEN not in str(refusal.value)
    assert access_from_environment(lambda endpoint: False).token is None
    assert access_from_environment(lambda endpoint: True).token == TOKEN


def test_the_hub_and_a_person_without_a_token_are_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(endpoint: str) -> bool:
        raise AssertionError(endpoint)

    monkeypatch.delenv("HF_ENDPOINT")
    assert access_from_environment(never).token == TOKEN
    monkeypatch.setenv("HF_ENDPOINT", MIRROR)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert access_from_environment(never).token is None


def test_a_yes_is_kept_and_holds_for_that_mirror_alone(tmp_path: Path) -> None:
    file = tmp_path / "mirrors.toml"
    Mirrors(file).answer(MIRROR, True)
    assert file.stat().st_mode & 0o777 == 0o600 and TOKEN not in file.read_text()
    later = Mirrors(file)
    assert later.says("https://mirror.example:443/other") is True
    for other in ("https://mirror.example:444", "https://other.example", "http://mirror.example"):
        assert later.says(other) is None


def test_a_no_holds_until_the_program_ends_and_takes_a_yes_back(tmp_path: Path) -> None:
    file = tmp_path / "mirrors.toml"
    mirrors = Mirrors(file)
    mirrors.answer(MIRROR, False)
    assert mirrors.says(MIRROR) is False and not file.exists()
    assert Mirrors(file).says(MIRROR) is None
    mirrors.answer(MIRROR, True)
    mirrors.answer(MIRROR, False)
    assert mirrors.says(MIRROR) is False and Mirrors(file).says(MIRROR) is None


@pytest.mark.parametrize(
    "damage", [b"\xff", b"mirror = 1", b"[[mirror]]\naddress = 1", b"mirror = [1]"]
)
def test_a_damaged_file_says_nothing(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "mirrors.toml"
    file.write_bytes(damage)
    assert Mirrors(file).says(MIRROR) is None


def test_one_command_says_it_for_later_ones() -> None:
    assert open_hub(False).access.token is None
    with pytest.raises(TokenUnaskedError):
        _ = open_hub().access
    assert open_hub(True).access.token == TOKEN
    assert open_hub().access.token == TOKEN


def test_downloads_ask_once_and_go_on_with_the_answer(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path / "models")
    assert downloads.mirror_to_ask() == MIRROR
    downloads.mirrors.answer(MIRROR, True)
    assert downloads.mirror_to_ask() == ""
    assert downloads.hub.access.token == os.environ["HF_TOKEN"]
