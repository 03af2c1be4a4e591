"""What answers at an address: which server it is, its models and their context.

Only what is needed is asked, and only of the server that the person named. All texts of it are checked: a
model whose name cannot be shown is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from engine.errors import KtchatError
from engine.protocol import Think
from engine.remote import errors
from engine.remote.address import Address, is_name, short_name
from engine.remote.http import Http

Kind = Literal["vLLM", "SGLang", "llama.cpp", "llama-cpp-python", "Ollama", "other"]

MOST_MODELS = 500
MOST_CONTEXT = 1 << 30

_OWNERS: dict[str, Kind] = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "llamacpp": "llama.cpp",
    "me": "llama-cpp-python",
    "library": "Ollama",
}
_CONTEXT = (
    "max_model_len", "n_ctx", "context_length", "max_context_length", "loaded_context_length",
    "context_window", "max_input_tokens",
)  # fmt: skip
"""What servers call the context in the list of their models."""

THINKING: tuple[tuple[str, tuple[Think, ...]], ...] = (
    ("enable_thinking", ("off", "on")),
    ("reasoning_effort", ("low", "medium", "high")),
)
"""Variables of chat templates, and what they choose."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model on a server."""

    name: str
    context: int = 0
    """Tokens; 0: the server does not say."""

    @property
    def short_name(self) -> str:
        """Its name without folders and endings: `Qwen3-30B-A3B`."""
        return short_name(self.name)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answered."""

    kind: Kind
    models: tuple[ServedModel, ...]

    @property
    def title(self) -> str:
        """What it is, in words."""
        return "an OpenAI-compatible server" if self.kind == "other" else self.kind


async def look(http: Http) -> Server:
    """What answers, and its models. Raises `ServerError`."""
    address = http.address
    answer = await http.get(_path(address.base, "models"))
    listed = answer.get("data") if isinstance(answer, Mapping) else None
    if listed is None and isinstance(answer, Mapping) and "models" in answer:
        listed = answer["models"]
    if not isinstance(listed, list):
        raise errors.no_interface(address.place, "Its answer is no list of models")
    entries = [entry for entry in listed[:MOST_MODELS] if isinstance(entry, Mapping)]
    models = tuple(
        ServedModel(name, _context_in(entry))
        for entry in entries
        if isinstance(name := entry.get("id") or entry.get("name"), str) and is_name(name)
    )
    owners = {str(entry.get("owned_by", "")).lower() for entry in entries}
    kind = next((kind for owner, kind in _OWNERS.items() if owner in owners), None)
    if kind in (None, "Ollama"):
        kind = "Ollama" if await _is_ollama(http, address) else "other"
    return Server(kind, models)


def chosen(server: Server, address: Address) -> ServedModel:
    """The model that an address names, or the only one. Raises `ServerModelError`."""
    place, models = address.place, server.models
    names = [model.name for model in models]
    if address.model:
        for model in models:
            if model.name in (address.model, f"{address.model}:latest"):
                return model
        if not names:  # some servers list nothing and answer all the same
            return ServedModel(address.model)
        raise errors.ServerModelError(
            f"{place} has no model {address.model}", f"It has {_some(names)}", "Name one of these"
        )
    if not names:
        raise errors.ServerModelError(
            f"{place} lists no model", "", "Load one there, or name it: --remote-model NAME"
        )
    if len(names) > 1:
        raise errors.ServerModelError(
            f"{place} has {len(names)} models",
            f"They are {_some(names)}",
            "Name one: --remote-model NAME",
        )
    return models[0]


async def thinking_of(http: Http, kind: Kind, model: ServedModel) -> tuple[Think, ...]:
    """What can be chosen of a model's thinking, by what its template reads; empty: the server does not show it."""
    if kind != "llama.cpp":
        return ()
    try:
        template = _mapping(await _props(http, model)).get("chat_template")
    except KtchatError:
        return ()
    found = (choices for name, choices in THINKING if name in str(template))
    return next(found, ())


async def context_of(http: Http, kind: Kind, model: ServedModel) -> int:
    """Tokens of a model's context, also where the server says it elsewhere than in its list; 0: nowhere."""
    address = http.address
    try:
        if kind == "llama.cpp":
            props = _mapping(await _props(http, model))
            settings = _mapping(props.get("default_generation_settings"))
            return _context_in(settings) or model.context
        if kind == "SGLang" and not model.context:
            return _context_in(_mapping(await http.get(_path(address.root, "get_server_info"))))
        if kind == "Ollama":
            return await _context_in_ollama(http, model)
    except KtchatError:
        pass  # the reply does not need it
    return model.context


async def _props(http: Http, model: ServedModel) -> Any:
    """What llama.cpp's server says of itself and of a model."""
    return await http.get(_path(http.address.root, f"props?model={quote(model.name, safe='')}"))


async def _context_in_ollama(http: Http, model: ServedModel) -> int:
    """What Ollama runs the model with: less, as a rule, than it was made for."""
    root = http.address.root
    running = _mapping(await http.get(_path(root, "api/ps"))).get("models")
    for entry in running if isinstance(running, list) else ():
        if _mapping(entry).get("name") == model.name:
            return _context_in(_mapping(entry))
    shown = _mapping(await http.post(_path(root, "api/show"), {"model": model.name}))
    for line in str(shown.get("parameters", "")).splitlines()[:100]:
        name, _, value = line.strip().partition(" ")
        if name == "num_ctx" and value.strip().isdecimal():
            return _tokens(int(value.strip()[:12]))
    return 0


async def _is_ollama(http: Http, address: Address) -> bool:
    try:
        version = await http.get(_path(address.root, "api/version"))
    except KtchatError:
        return False
    return isinstance(_mapping(version).get("version"), str)


def _path(url: str, path: str) -> str:
    """A path of the server: below the interface, or below its root."""
    whole = f"{url}/{path}".partition("://")[2]
    return "/" + whole.partition("/")[2]


def api_path(address: Address, path: str) -> str:
    """The path of the interface's `path`: `/v1/chat/completions`."""
    return _path(address.base, path)


def root_path(address: Address, path: str) -> str:
    """The path of what is the server's own: `/tokenize`."""
    return _path(address.root, path)


def _context_in(entry: Mapping[str, Any]) -> int:
    places = (entry, _mapping(entry.get("meta")), _mapping(entry.get("status")))
    found = (_tokens(place.get(name)) for place in places for name in _CONTEXT)
    return next(filter(None, found), 0)


def _tokens(value: object) -> int:
    return value if type(value) is int and 0 < value <= MOST_CONTEXT else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(_few(names, most))


def _few(names: list[str], most: int) -> Iterator[str]:
    yield from names[:most]
    if len(names) > most:
        yield f"and {len(names) - most} more"
