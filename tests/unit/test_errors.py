"""Errors hold no secrets, whatever they quote."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from engine.common import measurements
from engine.errors import EngineError, KtchatError, without_secrets

SECRETS = (
    "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "sk-proj-abcdefghijklmnop_qrst",
    "sk-ant-abcdefghijklmnop",
    "ghp_abcdefghijklmnopqrstuvwx",
    "github_pat_11ABCDEFG0abcdefghij",
    "AKIAIOSFODNN7EXAMPLE",
)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_key_is_blacked_out_in_every_part_and_over_the_pipe(secret: str) -> None:
    error = EngineError(f"GET https://x/?t={secret} failed", f"'{secret}'", f"unset {secret}.")
    assert secret not in str(error) and "…" in str(error)
    there = KtchatError.from_dict(error.to_dict())
    assert secret not in repr(there) and str(there) == str(error)


def test_a_header_is_blacked_out() -> None:
    assert without_secrets('{"Authorization": "Bearer abc123.def456"}').count("abc123") == 0


def test_ordinary_words_stay() -> None:
    for text in ("hf_hub", "task-force-of-the-moment", "a sk-learn pipeline", "AIzawa"):
        assert without_secrets(text) == text


def test_the_cache_folder_is_this_person_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "cache").mkdir(parents=True, mode=0o755)
    assert measurements.write("x", {"a": 1})
    assert stat.S_IMODE(measurements.cache_folder().stat().st_mode) == 0o700
