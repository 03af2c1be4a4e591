"""The settings file: damaged or not, the program starts; what is set comes back."""

from __future__ import annotations

import dataclasses
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.protocol import Load, Sampling
from ktchat import cli
from ktchat.cli import load_options
from ktchat.common.errors import SettingsError
from ktchat.common.paths import kv_folder
from ktchat.common.precedence import Layers
from ktchat.common.settings import MAX_RECENT, Overrides, Settings, SettingsFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "settings.toml"


def test_without_a_file_the_defaults_hold(path: Path) -> None:
    file = SettingsFile(path)
    assert file.settings == Settings() and file.notice == ""
    assert file.layers("/m.gguf") == Layers() and file.settings.said == {}
    assert file.load("/m.gguf").context is None
    assert not path.exists()


def test_what_is_set_comes_back(path: Path) -> None:
    changes = {
        "theme": "paper",
        "session_list": False,
        "system": 'Say "hi"\nin 中文 \\ \t \x7f 👨‍👩‍👧',
        "temperature": 0.0,
        "seed": 7,
        "max_tokens": 100,
        "recent_models": ("/a.gguf", "/b c.gguf"),
    }
    SettingsFile(path).update(**changes)
    again = SettingsFile(path)
    assert again.notice == ""
    assert again.settings == dataclasses.replace(Settings(), **changes)
    assert again.settings.said == changes
    layers = again.layers()
    assert (layers.sampling, layers.token_limit) == (Sampling(temperature=0.0, seed=7), 100)


def test_every_value_has_a_comment_in_the_file(path: Path) -> None:
    SettingsFile(path).update()
    lines = path.read_text().splitlines()
    for item in dataclasses.fields(Settings):
        (at,) = [n for n, line in enumerate(lines) if line.startswith(f"{item.name} = ")]
        assert lines[at - 1] == f"# {item.metadata['words']}"


def test_the_file_is_for_this_user_only(path: Path) -> None:
    SettingsFile(path).update(theme="paper")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [child.name for child in path.parent.iterdir()] == ["settings.toml"]


def test_two_programs_keep_each_others_changes(path: Path) -> None:
    one, two = SettingsFile(path), SettingsFile(path)
    one.update(theme="paper")
    two.update(seed=5)
    assert (one.read().theme, one.read().seed) == ("paper", 5)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('temperature = "hot"', ["temperature"]),
        ("temperature = 11", ["temperature"]),
        ("temperature = nan", ["temperature"]),
        ("temperature = true", ["temperature"]),
        ("top_k = 1.5\ntop_p = 2", ["top_k", "top_p"]),
        ("seed = -2\nmax_tokens = -1\ncontext = 99999999999999999999", ["seed", "max_tokens"]),
        ("session_list = 1", ["session_list"]),
        ('recent_models = "a"', ["recent_models"]),
        ("theme = [1]", ["theme"]),
        ('device = "tpu"\nkv = 8\ncontext = "much"', ["device", "kv", "context"]),
        ("context = true", ["context"]),
    ],
)
def test_an_impossible_value_becomes_the_default_and_is_named(
    path: Path, text: str, wrong: list[str]
) -> None:
    path.parent.mkdir()
    path.write_text(f'{text}\nlast_session = "kept"\n')
    file = SettingsFile(path)
    assert file.settings == dataclasses.replace(Settings(), last_session="kept")
    assert all(name in file.notice for name in wrong)
    assert "\n" not in file.notice


DAMAGED = [
    b"theme = ",
    b"\xff\xfe\x00",
    b"a = 1\na = 2",
    b"[" * 100_000,
    b"x = " + b"[" * 50_000,
    b"theme = '\x1b]52;c;QQ==\x07",
    b"\x00" * 4096,
    b"# much\n" * 200_000,
]


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_file_is_said_and_never_written_over(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    file = SettingsFile(path)
    assert file.settings == Settings()
    assert "damaged" in file.notice and "\x1b" not in file.notice and "\n" not in file.notice
    with pytest.raises(SettingsError, match="cannot be saved"):
        file.update(theme="paper")
    assert file.settings.theme == "paper", "it holds until the end"
    assert path.read_bytes() == data
    path.write_text("theme = 'mended'")
    assert file.update(seed=5).theme == "mended" and file.notice == ""
    assert SettingsFile(path).settings.seed == 5


@pytest.mark.parametrize("context", ["auto", 4096])
def test_models_are_loaded_as_the_settings_say_unless_the_command_line_does(
    path: Path, context: int | str
) -> None:
    file = SettingsFile(path)
    disk: dict[str, Any] = {"cache_folder": str(kv_folder())}
    assert file.load("/m") == Load("/m", **disk)
    file.update(context=context, device="cpu", kv="q8", disk_cache_gb=2.5)
    disk["cache_budget"] = 2_500_000_000
    wanted: Any = context
    assert SettingsFile(path).load("/m") == Load("/m", wanted, device="cpu", kv="q8", **disk)
    overrides = Overrides(context=77, device="gpu", lookup=False)
    loaded = SettingsFile(path, overrides).load("/m")
    assert loaded == Load("/m", 77, device="gpu", kv="q8", lookup=False, **disk)
    file.update(disk_cache=False, lookup=False)
    assert file.load("/m").cache_folder == "" and not file.load("/m").lookup
    with pytest.raises(SettingsError, match="disk_cache_gb"):
        file.update(disk_cache_gb=-1.0)


@pytest.mark.parametrize("before", [True, False])
def test_the_command_line_says_how_to_load(before: bool) -> None:
    options = ["--ctx", "auto", "--device=gpu", "--kv", "q8", "--lookup", "off"]
    arguments = [*options, "run", "hi"] if before else ["run", *options, "hi"]
    assert cli._command(arguments) == "run"
    args = cli._parser("run").parse_args(arguments)
    assert load_options.overrides(args) == Overrides("auto", "gpu", "q8", False)
    args = cli._parser("").parse_args(["--ctx", "5000"])
    assert load_options.overrides(args) == Overrides(5000)


OLD = "temperature = 0.7\ntop_k = 40\ntop_p = 0.95\nmin_p = 0.05\nrepeat_penalty = 1.0\n"


def test_sampling_that_nobody_set_is_the_model_s(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(OLD)  # as older versions wrote it for everybody
    file = SettingsFile(path)
    assert file.settings.said == {} and file.notice == ""
    file.update(theme="paper")
    assert 'temperature = "model"' in path.read_text()
    file.update(temperature=0.7)
    assert SettingsFile(path).settings.said == {"theme": "paper", "temperature": 0.7}
    path.write_text(OLD.replace("0.7", "0.2"))
    assert SettingsFile(path).layers().sampling == Sampling(temperature=0.2)
    path.write_text('temperature = "hot"\ntop_k = "model"\nmin_p = 0')
    file = SettingsFile(path)
    assert file.settings.said == {"min_p": 0.0} and "temperature (line 1)" in file.notice


def test_unknown_names_are_passed_over_and_stay(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('from_the_future = 1\ntheme = "paper"\n')
    file = SettingsFile(path)
    assert file.settings.theme == "paper" and file.notice == ""
    file.update(seed=5)
    assert tomllib.loads(path.read_text())["from_the_future"] == 1


def test_an_impossible_change_is_refused(path: Path) -> None:
    file = SettingsFile(path)
    with pytest.raises(SettingsError, match="temperature"):
        file.update(temperature=99.0)
    assert file.settings == Settings() and not path.exists()


@pytest.mark.parametrize("place", ["/proc/nowhere/settings.toml", "file/settings.toml"])
def test_where_nothing_can_be_written_the_change_holds_until_the_end(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    file = SettingsFile(tmp_path / place)
    with pytest.raises(SettingsError, match="cannot be saved"):
        file.update(theme="paper")
    assert file.settings.theme == "paper"


def test_a_folder_in_its_place_is_no_crash(path: Path) -> None:
    path.mkdir(parents=True)
    file = SettingsFile(path)
    assert file.settings == Settings() and "it is a folder" in file.notice
    with pytest.raises(SettingsError):
        file.update(theme="paper")


def test_models_are_remembered_the_last_first_and_once(path: Path) -> None:
    file = SettingsFile(path)
    for number in [*range(MAX_RECENT + 5), 3]:
        file.update(**file.settings.with_model(f"/m{number}.gguf"))
    assert file.settings.last_model == "/m3.gguf"
    recent = file.settings.recent_models
    assert recent[:2] == ("/m3.gguf", f"/m{MAX_RECENT + 4}.gguf")
    assert len(recent) == len(set(recent)) == MAX_RECENT


def test_the_file_is_plain_toml(path: Path) -> None:
    SettingsFile(path).update(system="a\x00b\ud800")
    values = tomllib.loads(path.read_text())
    assert values["system"] == "a\x00b\ufffd"
    assert json.dumps(values)
