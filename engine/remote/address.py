"""Addresses of servers and of the models on them: `http://host:8000/v1#Qwen3-30B`.

Such an address stands where a local model has its path.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from engine.remote.errors import AddressError

LONGEST = 1000
"""Characters of an address."""
LONGEST_NAME = 200
"""Characters of a model's name."""

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?!-)[a-z0-9._-]{1,253}")
_ENDPOINTS = ("/chat/completions", "/completions", "/models")
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
)
"""RFC 1918, 3927, 4193, 4291 and 6598."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and a model there. Made by `parse`; all of it is safe to draw."""

    base: str
    """Where the interface begins: `http://host:8000/v1`."""
    model: str = ""
    """Its name on the server; empty: the only one there is."""

    def __str__(self) -> str:
        return f"{self.base}#{quote(self.model, safe='/:@+ ')}" if self.model else self.base

    @property
    def origin(self) -> str:
        """Scheme, host and port: `http://host:8000`."""
        scheme, _, rest = self.base.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"

    @property
    def host(self) -> str:
        """The host as it is connected to, without its port."""
        return urlsplit(self.base).hostname or ""

    @property
    def port(self) -> int:
        """The port, also where the address leaves it out."""
        parts = urlsplit(self.base)
        return parts.port or _PORTS[parts.scheme]

    @property
    def encrypted(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        return self.base.startswith("https://")

    @property
    def place(self) -> str:
        """Host and port in a few cells: `host:8000`."""
        return place_of(self.origin)

    @property
    def root(self) -> str:
        """Where a server has what is its own: the base without `/v1`."""
        return self.base.removesuffix("/v1")


def is_address(path: str) -> bool:
    """Whether a model's path is an address on a server."""
    return path.startswith(("http://", "https://"))


def parse(text: str) -> Address:
    """The address that a person typed, or that was kept. Raises `AddressError`.

    Without a scheme it is http; without a path the interface is below `/v1`.
    """
    base, _, model = text.strip().partition("#")
    base = base if "://" in base else f"http://{base}"
    if len(text) > LONGEST or not base.isprintable() or " " in base:
        raise _not_one("It holds characters that no address has")
    if "@" in base.partition("://")[2]:
        raise _not_one("It holds a password, which would be shown", "Give the key apart from it")
    try:
        parts = urlsplit(base)
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:
        raise _not_one("Host or port cannot be read") from None
    if parts.scheme not in _PORTS:
        raise _not_one("It is neither http nor https")
    if parts.query:
        raise _not_one("It holds a question mark")
    path = parts.path.rstrip("/")
    for ending in _ENDPOINTS:
        path = path.removesuffix(ending)
    where = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    return Address(f"{parts.scheme}://{where}{quote(path or '/v1', safe='/%:~')}", _name(model))


def address_of(path: str) -> Address | None:
    """The address in a model's path; None: it is a file's, or none that can be used."""
    try:
        return parse(path) if is_address(path) else None
    except AddressError:
        return None


def named(base: str, model: str) -> str:
    """The address of a model as the command line names it: endpoint and name. Raises `AddressError`."""
    address = parse(base)
    return str(Address(address.base, _name(model) if model else address.model))


def place_of(origin: str) -> str:
    """An origin in a few cells: `host:8000`."""
    return origin.partition("://")[2]


def short_name(model: str) -> str:
    """A model's name without folders and endings: `Qwen3-30B-A3B`."""
    return model.rsplit("/", 1)[-1].removesuffix(".gguf") or model


def is_private(host: str) -> bool:
    """Whether a numeric address is this machine's or one of a private network; False for a name."""
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    number = getattr(number, "ipv4_mapped", None) or number
    return number.is_loopback or any(number in network for network in _PRIVATE)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_name(text: str) -> bool:
    """Whether a model can have this name."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and text == text.strip()


def _host(host: str) -> str:
    """As it is looked up and shown: other scripts in their ASCII form. Raises `ValueError`."""
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host)}]"
    host = host.lower().encode("idna").decode() if host else ""
    if not _HOST.fullmatch(host):
        raise ValueError
    return host


def _name(text: str) -> str:
    name = unquote(text)
    if name and not is_name(name):
        raise AddressError(
            "That is no name of a model", "It is too long or cannot be shown", "Check the name"
        )
    return name


def _not_one(why: str, todo: str = "Write it as http://HOST:PORT/v1") -> AddressError:
    return AddressError("That is not the address of a server", why, todo)
