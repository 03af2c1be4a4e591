"""A reply and its progress in one line, the same on the screen and on the command line."""

from __future__ import annotations

from pathlib import Path

from engine.common.units import byte_size, count, duration, rate, short_count
from engine.protocol import Figures, Loaded, Progress
from engine.remote.address import address_of, place_of, short_name
from ktchat.common.text import one_line


def speed(tokens_a_second: float) -> str:
    """A speed that was measured: `18.4 tok/s`, `2,120 tok/s`."""
    return rate(tokens_a_second, True)


def progress(event: Progress) -> str:
    """Work in progress: `reading 2,310 of 4,096 tokens · 9 s left`."""
    if event.stage == "load":
        words = f"loading {byte_size(event.done)} of {byte_size(event.total)}"
    else:
        words = f"reading {count(event.done)} of {count(event.total)} tokens"
    left = seconds_left(event)
    return words if left is None else f"{words} · {duration(left)} left"


ENDINGS = {
    "stopped": "stopped",
    "interrupted": "interrupted: the program ended before the reply did",
    "length": "the reply reached its limit of tokens",
    "context": "the context is full",
    "repeats": "stopped: it said the same again and again",
}
"""How a reply ended, by its state or its reason, where it is not at its end."""


def counted(number: int, noun: str) -> str:
    """`1 token`, `2,310 tokens`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def seconds_left(event: Progress) -> float | None:
    """Seconds until the work is done at its pace so far; None when that says nothing yet."""
    if event.done <= 0 or event.seconds < 0.5 or event.done >= event.total:
        return None
    return event.seconds * (event.total - event.done) / event.done


def model_file(path: str) -> str:
    """A model by its file's name, safe to draw: `Qwen3-30B-A3B-Q4_K_M`; on a server: `Qwen3-30B-A3B · host:8000`."""
    if (address := address_of(path)) is not None:
        return one_line(" · ".join(filter(None, (short_name(address.model), address.place))), 60)
    return one_line(Path(path).name.removesuffix(".gguf"), 60)


def place(model: Loaded) -> str:
    """What computes: `CPU`, `GPU`, `GPU and CPU`, or the server `host:8000`."""
    if model.origin:
        return place_of(model.origin)
    return "GPU and CPU" if model.device == "hybrid" else model.device


def answering(model: Loaded) -> str:
    """A model as the author of a reply, safe to draw: `Qwen3`, and of one on a server where that is."""
    parts = (model.name, place_of(model.origin) if model.origin else "")
    return one_line(" · ".join(filter(None, parts)))


def on_disk(used: int, budget: int | None) -> str:
    """What sessions take on the disk to be opened at once: `1.2 GB of at most 10 GB`; budget None: it is off."""
    most = "nothing more is kept" if budget is None else f"at most {byte_size(budget)}"
    return (
        f"{byte_size(used)} on the disk, so that sessions answer at once when opened again; {most}"
    )


def restored(turn: Figures) -> str:
    """What came from the disk of a prompt, and what was read: `31.8k from disk, 12 read`; empty: nothing did."""
    if not turn.restored_tokens:
        return ""
    tokens, read = turn.restored_tokens, turn.prompt_tokens - turn.cached_tokens
    restored = f"{tokens / 1000:.1f}k" if tokens >= 10_000 else count(tokens)
    return f"{restored} from disk, {count(read)} read"


def lookup(turn: Figures) -> str:
    """What prompt lookup gave: `+18 % by lookup`; empty: nothing worth a word."""
    percent = round(100 * turn.lookup_gain)
    return f"{percent:+d} % by lookup".replace("-", "−") if abs(percent) > 1 else ""


def read_again(tokens: int, tokens_a_second: float) -> str:
    """What a change costs: `reads 412 tokens again · 3 s`; no seconds where no speed was measured."""
    said = f"reads {counted(tokens, 'token')} again"
    if not tokens_a_second:
        return said
    seconds = tokens / tokens_a_second
    return f"{said} · {'under 1 s' if seconds < 1 else duration(seconds)}"


def figures(turn: Figures) -> str:
    """A turn in one line: `18.4 tok/s · first 0.9 s · 213 tokens · context 3.1k of 32k · seed 7`.

    After the speed, where prompt lookup gave something: `+18 % by lookup`. Where a part of the prompt was not read: `31.8k from disk, 12 read` after the first token's time.
    """
    parts = [speed(turn.decode_tok_s)] if turn.decode_tok_s else []
    parts += filter(None, [lookup(turn)])
    parts.append(f"first {duration(turn.first_token_seconds)}")
    parts += filter(None, [restored(turn)])
    parts.append(counted(turn.reply_tokens, "token"))
    if turn.context_size:
        used, whole = short_count(turn.context_used), short_count(turn.context_size)
        parts.append(f"context {used} of {whole}")
    return " · ".join([*parts, f"seed {turn.seed}"])
