"""How long a context is: what is asked for, or what a machine's free memory allows."""

from __future__ import annotations

from engine.common.units import byte_size, count
from engine.errors import MemoryShortError, RequestError
from engine.plan.footprint import PAGE, kv_row_bytes, memory_bytes, weight_bytes, workspace_bytes
from engine.protocol import Auto, KvKind
from engine.spec.spec import ModelSpec

MAX_CHOSEN_CONTEXT = 32768
"""Longest context that is chosen without being asked for."""
KV_SHARE = 4
"""A context chosen without being asked for takes at most this part (a quarter) of the free memory."""
CONTEXT_STEP = 256
"""Chosen contexts are a multiple of this many tokens, and at least one of them."""
RESERVE = 256 << 20
"""Bytes left for buffers, the vocabulary and Python, at least."""


def choose_context(
    requested: int | Auto | None, spec: ModelSpec, free: int, kv: KvKind = "f16"
) -> int:
    """Tokens of context: what is asked for; "auto": the most that fits and that the model was trained
    for; None: the least of what it was trained for, what a quarter of the `free` bytes holds, what fits
    beside the weights, and 32768.

    Raises `RequestError`, and `MemoryShortError` when weights and KV cache do not fit.
    """
    check_context(requested)
    most = largest_context(spec, free, kv)
    context = wanted_context(requested, spec, free, kv)
    if context > most:
        raise _too_large(spec, context, free, most, kv)
    return context


def check_context(requested: int | Auto | None) -> None:
    """Raises `RequestError` for a context that no model has."""
    if isinstance(requested, int) and requested < 1:
        raise RequestError(f"A context of {requested} tokens is not possible")


def wanted_context(
    requested: int | Auto | None, spec: ModelSpec, free: int, kv: KvKind = "f16"
) -> int:
    """The context of `choose_context`, whether it fits or not: at least one step unless asked for."""
    if requested == "auto":
        return min(spec.context, max(CONTEXT_STEP, largest_context(spec, free, kv)))
    if requested is not None:
        return requested
    per_token = max(1, kv_row_bytes(spec.kv_bytes_per_token, kv))
    fitting = min(
        MAX_CHOSEN_CONTEXT, largest_context(spec, free, kv), max(0, free) // KV_SHARE // per_token
    )
    return min(spec.context, max(1, fitting // CONTEXT_STEP) * CONTEXT_STEP)


def largest_context(spec: ModelSpec, free: int, kv: KvKind = "f16") -> int:
    """Tokens whose KV cache fits beside the weights into `free` bytes; whole pages."""
    room = free - reserve_bytes(spec) - sum(weight_bytes(spec).values())
    page = PAGE * max(1, kv_row_bytes(spec.kv_bytes_per_token, kv))
    return max(0, room - sum(memory_bytes(spec, 0, kv).values())) // page * PAGE


def reserve_bytes(spec: ModelSpec) -> int:
    """Bytes that are kept for everything but weights and KV cache."""
    return max(RESERVE, workspace_bytes(spec))


def _too_large(spec: ModelSpec, context: int, free: int, most: int, kv: KvKind) -> MemoryShortError:
    weights, cache = (
        sum(p.values()) for p in (weight_bytes(spec), memory_bytes(spec, context, kv))
    )
    return MemoryShortError(
        f"{spec.name} does not fit into memory",
        f"Its weights take {byte_size(weights)} and a context of {count(context)} tokens {byte_size(cache)}, "
        f"with {byte_size(reserve_bytes(spec))} to work in; {byte_size(free)} are free",
        f"Use a context of at most {count(most)} tokens"
        if most >= CONTEXT_STEP
        else "Close other programs, or choose a smaller model or quantisation",
    )
