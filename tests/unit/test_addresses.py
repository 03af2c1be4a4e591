"""Addresses of servers: what a person may type, what is refused, and which hosts are private."""

from __future__ import annotations

import pytest

from engine.remote.address import Address, address_of, is_address, is_private, named, parse
from engine.remote.errors import AddressError
from ktchat.common import words


@pytest.mark.parametrize(
    ("typed", "base"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        ("http://HOST:8000", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://host:443/api/v1/models", "https://host/api/v1"),
        ("  http://10.0.0.5:80/v1 ", "http://10.0.0.5/v1"),
        ("http://[::1]:8080", "http://[::1]:8080/v1"),
        ("http://bücher.example", "http://xn--bcher-kva.example/v1"),
    ],
)
def test_what_a_person_types(typed: str, base: str) -> None:
    address = parse(typed)
    assert address == Address(base)
    assert parse(str(address)) == address and is_address(str(address))


@pytest.mark.parametrize(
    "typed",
    [
        *(
            "",
            "ftp://host/v1",
            "http://",
            "http:///v1",
            "http://user:secret@host/v1",
            "http://h:99999",
        ),
        *(
            "http://h:x",
            "http://h/v1?key=1",
            "http://a b/v1",
            "http://h/\x1b[2J",
            "http://[::1",
            "http://-x",
        ),
        *("http://h/" + "x" * 2000, "http://h\u202e/v1"),
    ],
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(AddressError) as error:
        parse(typed)
    assert "secret" not in str(error.value) and error.value.todo


def test_a_model_is_a_part_of_the_address() -> None:
    path = named("host:8000", "Qwen/Qwen3-30B-A3B:q4 K#1")
    address = parse(path)
    assert address.model == "Qwen/Qwen3-30B-A3B:q4 K#1" and address.base == "http://host:8000/v1"
    assert str(address) == path and path.isprintable()
    assert address.origin == "http://host:8000" and address.place == "host:8000"
    assert address.root == "http://host:8000" and address.port == 8000
    assert parse("https://host/v1").port == 443
    for name in ("\x1b[2J", "x" * 300, " x"):
        with pytest.raises(AddressError):
            named("host", name)


def test_a_model_on_a_server_in_words() -> None:
    assert words.model_file(named("h:1", "org/Model-7B.gguf")) == "Model-7B · h:1"
    assert words.model_file("http://h:1/v1") == "h:1"
    assert words.model_file("http://bad:port/x.gguf") == "x"  # never an error
    assert address_of("http://bad:port/") is None and address_of("/models/a.gguf") is None


def test_private_hosts() -> None:
    for host in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1"):
        assert is_private(host)
    for host in ("::1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1"):
        assert is_private(host)
    for host in (
        "8.8.8.8",
        "172.32.0.1",
        "100.128.0.1",
        "2606:2800::1",
        "::ffff:8.8.8.8",
        "localhost",
    ):
        assert not is_private(host)
    assert not is_private("192.168.1.1.example")
