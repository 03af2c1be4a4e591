"""The person's servers of models: a small file of names and addresses, and what opens each."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import KtchatError
from engine.remote.address import Address, parse
from engine.remote.engine import Access
from ktchat.common import paths, toml_file
from ktchat.common.errors import SettingsError, reason_of
from ktchat.common.text import one_line
from ktchat.library.keys import Keys

MAX_BYTES = 1 << 20
MOST = 100
HEAD = "Servers of models that ktchat knows. Keys are not in this file."
VARIABLE = "KTCHAT_ENDPOINT_KEY"
"""The environment variable with the key of the server that the command line names."""

FOUND = (("Ollama", "http://127.0.0.1:11434/v1"), ("llama-server", "http://127.0.0.1:8080/v1"))
"""Servers on this machine that are looked for and offered; nothing else is asked."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that the person added. All texts are safe to draw."""

    address: str
    """Where its interface begins: `http://host:8000/v1`."""
    name: str = ""
    variable: str = ""
    """The environment variable with its key; empty: it is kept here, or there is none."""
    plain: bool = False
    """Whether the key may go there in clear, as the person once said."""
    context: int = 0
    """Tokens of context, where the server does not say it; 0: unknown."""

    @property
    def title(self) -> str:
        """Its name, or its address."""
        return self.name or parse(self.address).place


class Servers:
    """The file of servers. Reading never fails; writing raises `SettingsError`. All of it blocks shortly."""

    def __init__(self, path: Path | None = None, endpoint: str = "") -> None:
        """`endpoint` is the server that the command line names: the key in the environment is for it alone."""
        self.path = path or paths.settings_folder() / "servers.toml"
        self.keys = Keys(self.path.with_name("keys.json"))
        self._origin = parse(endpoint).origin if endpoint else ""
        self._allowed: set[str] = set()

    def read(self) -> list[Server]:
        """All of them, in their order."""
        try:
            with self.path.open("rb") as file:
                values = tomllib.loads(file.read(MAX_BYTES).decode("utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        listed = values.get("server")
        found: dict[str, Server] = {}
        for entry in (listed if isinstance(listed, list) else [])[:MOST]:
            server = _server(entry) if isinstance(entry, dict) else None
            if server is not None:
                found.setdefault(server.address, server)
        return list(found.values())

    def find(self, address: Address) -> Server | None:
        """The server at an address, or another one of the same origin."""
        known = self.read()
        here = [server for server in known if server.address == address.base]
        near = [server for server in known if parse(server.address).origin == address.origin]
        return next(iter(here + near), None)

    def add(self, server: Server) -> None:
        """Keep a server in place of one with its address."""
        others = self.read()
        at = [number for number, one in enumerate(others) if one.address == server.address]
        if at:
            others[at[0]] = server
        else:
            others.append(server)
        self._write(others)

    def remove(self, server: Server) -> None:
        """Forget a server, and its key where no other one is at its origin."""
        left = [one for one in self.read() if one.address != server.address]
        self._write(left)
        origin = parse(server.address).origin
        if all(parse(one.address).origin != origin for one in left):
            self.keys.forget(origin)

    def allow_plain(self, address: Address) -> None:
        """The person says that the key may go to this server in clear; it is not asked again."""
        self._allowed.add(address.origin)
        known = self.find(address) or Server(address.base)
        self.add(dataclasses.replace(known, plain=True))

    def access(self, address: Address) -> Access:
        """What opens a server: its key, from the environment or from where it is kept."""
        known = self.find(address)
        plain = address.origin in self._allowed or (known is not None and known.plain)
        key = os.environ.get(VARIABLE, "") if address.origin == self._origin else ""
        if not key and known is not None and known.variable:
            key = os.environ.get(known.variable, "")
        context = known.context if known is not None else 0
        return Access(key.strip() or self.keys.find(address.origin), plain, context)

    def _write(self, servers: list[Server]) -> None:
        try:
            tables = [
                {name: value for name, value in dataclasses.asdict(server).items() if value}
                for server in servers
            ]
            toml_file.write_tables(self.path, HEAD, "server", tables)
        except OSError as error:
            why, todo = reason_of(error)
            raise SettingsError(
                "The servers cannot be saved", f"{self.path}: {why}", todo
            ) from error


def _server(entry: Mapping[str, Any]) -> Server | None:
    """A server from foreign values; None: it has no address."""
    try:
        address = parse(str(entry.get("address", ""))).base
    except KtchatError:
        return None
    context = entry.get("context")
    return Server(
        address=address,
        name=one_line(str(entry.get("name", "")), 40),
        variable=one_line(str(entry.get("variable", "")), 100),
        plain=entry.get("plain") is True,
        context=context if type(context) is int and 0 <= context <= 1 << 30 else 0,
    )
