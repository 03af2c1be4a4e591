"""What answers at a server, asked now; and the servers on this machine that are found by themselves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from engine.common.threads import ask
from engine.common.units import short_count
from engine.errors import KtchatError
from engine.remote import server as remote
from engine.remote.address import Address, parse
from engine.remote.http import Http
from engine.remote.server import ServedModel
from ktchat.common.text import one_line
from ktchat.library.servers import FOUND, Server, Servers

ASKED = 4
"""Of so many models the context is asked for one by one."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answered. `title` is what it is: `vLLM`."""

    title: str
    models: tuple[ServedModel, ...]

    @property
    def words(self) -> str:
        """All of it in a line: `vLLM · Qwen3-30B-A3B (32k)`."""
        if not self.models:
            return f"{self.title} · it lists no model"
        shown = [_named(model) for model in self.models[:8]]
        more = len(self.models) - len(shown)
        return f"{self.title} · {', '.join(shown)}{f' and {more} more' if more else ''}"


async def served(servers: Servers, address: Address) -> Served:
    """What answers at an address. Raises `ServerError`."""
    access = await ask(servers.access, address)
    http = Http(address, access.key, access.plain)
    try:
        found = await remote.look(http)
        models = list(found.models)
        for at, model in enumerate(models[:ASKED]):
            context = await remote.context_of(http, found.kind, model)
            models[at] = replace(model, context=context or access.context)
        return Served(found.title, tuple(models))
    finally:
        await http.close()


async def found_here(servers: Servers, known: list[Server]) -> list[tuple[Server, Served]]:
    """Those of `FOUND` that answer and are not known yet. No key is sent."""
    taken = {(parse(server.address).port, _here(server.address)) for server in known}

    async def look(name: str, base: str) -> tuple[Server, Served] | None:
        address = parse(base)
        if (address.port, True) in taken:
            return None
        http = Http(address)
        try:
            found = await remote.look(http)
        except KtchatError:
            return None
        finally:
            await http.close()
        expected = "Ollama" if name == "Ollama" else "llama.cpp"
        name = name if found.kind == expected else found.kind
        return Server(address.base, name), Served(found.title, found.models)

    answers = await asyncio.gather(*(look(name, base) for name, base in FOUND))
    return [answer for answer in answers if answer is not None]


def _here(base: str) -> bool:
    return parse(base).host in ("127.0.0.1", "localhost", "::1")


def _named(model: ServedModel) -> str:
    context = f" ({short_count(model.context)})" if model.context else ""
    return one_line(model.name, 60) + context
