"""The tokens of a conversation, counted by the server where it has a way to say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.protocol import Counted, Message
from engine.remote.http import Http
from engine.remote.server import Kind, root_path


async def count(http: Http, kind: Kind, model: str, messages: Sequence[Message]) -> Counted | None:
    """The prompt as the server's own template makes it; None: it does not say. Raises `ServerError`.

    `Counted.each` is there for a single message alone: each one more would be a request more.
    """
    if kind == "vLLM":
        tokens = await _by_vllm(http, {"model": model, "messages": _plain(messages)})
    elif kind == "llama.cpp":
        path = root_path(http.address, "apply-template")
        answer = await http.post(path, {"model": model, "messages": _plain(messages)})
        prompt = answer.get("prompt") if isinstance(answer, Mapping) else None
        if not isinstance(prompt, str):
            return None
        tokens = await _by_llama_cpp(http, model, prompt, special=True)
    else:
        return None
    each: tuple[int, ...] = ()
    if tokens is not None and len(messages) == 1:
        text = messages[0].content
        if kind == "vLLM":
            words = {"model": model, "prompt": text, "add_special_tokens": False}
            own = await _by_vllm(http, words)
        else:
            own = await _by_llama_cpp(http, model, text, special=False)
        each = () if own is None else (own,)
    return None if tokens is None else Counted(0, tokens, 0, each)


async def _by_vllm(http: Http, request: Mapping[str, object]) -> int | None:
    answer = await http.post(root_path(http.address, "tokenize"), request)
    tokens = answer.get("count") if isinstance(answer, Mapping) else None
    return tokens if type(tokens) is int and tokens >= 0 else None


async def _by_llama_cpp(http: Http, model: str, text: str, special: bool) -> int | None:
    request = {
        "model": model,
        "content": text,
        "add_special": special,
        "parse_special": special,
    }
    answer = await http.post(root_path(http.address, "tokenize"), request)
    tokens = answer.get("tokens") if isinstance(answer, Mapping) else None
    return len(tokens) if isinstance(tokens, list) else None


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
