"""The person's servers and their keys: files, modes, and where a key comes from."""

from __future__ import annotations

import json
import stat
import sys
import types
from pathlib import Path

import pytest

from engine.remote.address import parse
from ktchat.common import paths
from ktchat.common.errors import SettingsError
from ktchat.library.keys import Keys
from ktchat.library.servers import VARIABLE, Server, Servers

KEY = "key-0123456789"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "home"


def test_servers_are_kept_changed_and_removed(home: Path) -> None:
    servers = Servers()
    assert servers.read() == []
    one = Server("http://a:1/v1", name='The "lab"')
    two = Server("https://b/v1", variable="LAB_KEY", context=32768)
    servers.add(one)
    servers.add(two)
    assert Servers().read() == [one, two]
    changed = Server("http://a:1/v1", name="lab")
    servers.add(changed)
    assert Servers().read() == [changed, two]
    servers.remove(changed)
    assert Servers().read() == [two]
    assert one.title == 'The "lab"' and Server("http://a:1/v1").title == "a:1"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "no toml [",
            "server = 3",
            "server = [1, 'x', {}]",
            '[[server]]\naddress = "ftp://x"',
        ),
        *('[[server]]\naddress = "http://u:p@h"', "\xff", "[[server]]\n" * 5),
    ],
)
def test_a_file_that_says_nonsense_has_no_servers(home: Path, text: str) -> None:
    home.mkdir()
    (home / "servers.toml").write_text(text, "latin-1")
    assert Servers().read() == []


def test_foreign_values_are_made_safe(home: Path) -> None:
    home.mkdir()
    (home / "servers.toml").write_text(
        '[[server]]\naddress = "h:1"\nname = "\\u001b[2Jx"\nplain = "yes"\ncontext = -4\n'
        '[[server]]\naddress = "http://h:1/v1/"\n'
    )
    assert Servers().read() == [Server("http://h:1/v1", name="x")]


def test_servers_that_cannot_be_written_are_said(home: Path) -> None:
    home.parent.joinpath("home").write_text("a file where the folder should be")
    with pytest.raises(SettingsError):
        Servers().add(Server("http://a:1/v1"))
    with pytest.raises(SettingsError) as error:
        Keys().keep("http://a:1", KEY)
    assert KEY not in str(error.value)


def test_a_key_lies_in_a_file_for_this_user_only(home: Path) -> None:
    keys = Keys()
    assert keys.find("http://a:1") == ""
    assert "keys.json" in keys.keep("http://a:1", KEY)
    keys.keep("https://b", "other")
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert Keys().find("http://a:1") == KEY and Keys().find("http://a:2") == ""
    keys.path.chmod(0o644)
    assert keys.find("https://b") == "other"
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    keys.forget("http://a:1")
    assert keys.find("http://a:1") == "" and keys.find("https://b") == "other"
    keys.forget("https://b")
    assert not keys.path.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"http://a:1": 3}', "[" * 100_000])
def test_a_damaged_file_of_keys_has_none(home: Path, text: str) -> None:
    home.mkdir()
    (home / "keys.json").write_text(text)
    assert Keys().find("http://a:1") == ""
    Keys().keep("http://a:1", KEY)
    assert Keys().find("http://a:1") == KEY


class Ring(types.ModuleType):
    """The system's keyring."""

    def __init__(self, priority: float = 5.0, broken: bool = False) -> None:
        super().__init__("keyring")
        self.kept: dict[tuple[str, str], str] = {}
        self.priority, self.broken = priority, broken

    def get_keyring(self) -> Ring:
        return self

    def get_password(self, service: str, name: str) -> str | None:
        if self.broken:
            raise RuntimeError("locked")
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, key: str) -> None:
        if self.broken:
            raise RuntimeError("locked")
        self.kept[service, name] = key

    def delete_password(self, service: str, name: str) -> None:
        del self.kept[service, name]


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    """A keyring, and folders of the system's kind: with KTCHAT_HOME none is used."""
    ring = Ring()
    monkeypatch.delenv("KTCHAT_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setitem(sys.modules, "keyring", ring)
    return ring


def test_where_there_is_a_keyring_the_key_lies_there(ring: Ring) -> None:
    keys = Keys()
    assert keys.keep("http://a:1", KEY) == "the system's keyring"
    assert ring.kept == {("ktchat", "http://a:1"): KEY} and not keys.path.exists()
    assert keys.find("http://a:1") == KEY
    keys.forget("http://a:1")
    assert ring.kept == {} and keys.find("http://a:1") == ""


@pytest.mark.parametrize(("priority", "broken"), [(0.0, False), (5.0, True)])
def test_a_keyring_that_keeps_nothing_gives_way_to_the_file(
    ring: Ring, priority: float, broken: bool
) -> None:
    ring.priority, ring.broken = priority, broken
    keys = Keys()
    keys.keep("http://a:1", KEY)
    assert ring.kept == {} and keys.find("http://a:1") == KEY
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600


def test_with_one_folder_for_everything_no_keyring_is_asked(ring: Ring, home: Path) -> None:
    Keys().keep("http://a:1", KEY)
    assert ring.kept == {} and paths.home() == home


def test_where_a_key_comes_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Servers(endpoint="http://a:1/v1#model")
    here, there = parse("http://a:1/v1"), parse("http://b:1/v1")
    assert servers.access(here).key == ""
    servers.keys.keep(there.origin, "kept")
    assert servers.access(there).key == "kept"
    servers.add(Server(there.base, variable="LAB_KEY"))
    monkeypatch.setenv("LAB_KEY", "of the variable")
    assert servers.access(there).key == "of the variable"
    monkeypatch.setenv(VARIABLE, "of the endpoint\n")
    assert servers.access(here).key == "of the endpoint"
    assert servers.access(there).key == "of the variable"  # it is for that origin alone
    assert servers.access(parse("http://a:2/v1")).key == ""
    assert "of the" not in repr(servers.access(here))


def test_the_key_of_an_origin_goes_with_its_last_server(home: Path) -> None:
    servers = Servers()
    one, two = Server("http://a:1/v1"), Server("http://a:1/other/v1")
    servers.add(one)
    servers.add(two)
    servers.keys.keep("http://a:1", KEY)
    servers.remove(one)
    assert servers.keys.find("http://a:1") == KEY
    servers.remove(two)
    assert servers.keys.find("http://a:1") == ""


def test_a_yes_to_a_key_in_clear_is_remembered(home: Path) -> None:
    servers = Servers()
    address = parse("http://gpu.example/v1")
    assert not servers.access(address).plain
    servers.allow_plain(address)
    assert servers.access(address).plain and Servers().access(address).plain
    assert not servers.access(parse("http://other.example/v1")).plain


def test_no_key_is_in_the_file_of_servers(home: Path) -> None:
    servers = Servers()
    servers.add(Server("http://a:1/v1", name="lab"))
    servers.keys.keep("http://a:1", KEY)
    assert KEY not in (home / "servers.toml").read_text()
    assert json.loads((home / "keys.json").read_text()) == {"http://a:1": KEY}
