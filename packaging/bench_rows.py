"""The tables that `bench_tables.py` measures: their columns and rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.common.units import byte_size

Figures = dict[str, Any]
"""What `ktchat bench --json` prints; of several lengths, those under `lengths`."""
Column = tuple[str, Callable[[Figures], str]]


@dataclass(frozen=True)
class Row:
    """What a row is about, and the arguments of its `ktchat bench`."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`minutes`: about how long it takes on two cores in a quiet hour."""

    caption: str
    minutes: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    lines: Callable[[Row, Figures], Iterator[tuple[str, Figures]]] = lambda row, figures: iter(
        [(row.name, figures)]
    )
    """The lines of one run: their names and figures."""


def _ratio(key: str) -> Callable[[Figures], str]:
    return lambda figures: "" if figures[key] is None else f"{figures[key]:.2f}"


def _speed(key: str) -> Callable[[Figures], str]:
    return lambda figures: f"{figures[key]:.1f}" if figures[key] < 99.95 else f"{figures[key]:.0f}"


def _share(figures: Figures) -> str:
    return "" if figures["limit_ratio"] is None else f"{100 * figures['limit_ratio']:.0f} %"


def _seconds(figures: Figures) -> str:
    return f"{figures['follow_up_s']:.2f} s, {figures['follow_up_ratio']:.2f}"


SPEEDS: tuple[Column, ...] = (
    ("prefill tok/s", _speed("prefill_tok_s")),
    ("x llama.cpp", _ratio("prefill_ratio")),
    ("decode tok/s", _speed("decode_tok_s")),
    ("x llama.cpp", _ratio("decode_ratio")),
    ("of the memory's speed", _share),
    ("GB/s that it gave", lambda figures: f"{figures['read_limit_gb_s']:.1f}"),
)
LOOKUP: tuple[Column, ...] = (
    ("tokens", lambda figures: str(figures["tokens"])),
    ("tok/s without", _speed("plain_tok_s")),
    ("tok/s with lookup", _speed("lookup_tok_s")),
    ("ratio", _ratio("ratio")),
)


LENGTHS: tuple[Column, ...] = (
    ("prefill tok/s", _speed("prefill_tok_s")),
    ("of the first", _ratio("of_first")),
    ("decode tok/s", _speed("decode_tok_s")),
    ("a token reads", lambda figures: byte_size(figures["token_bytes"])),
    ("bound tok/s", _speed("bound_tok_s")),
    ("of it", _share),
)


def _shape(name: str, layers: int, *more: str) -> tuple[str, ...]:
    return "--shape", name, "--layers", str(layers), "--vs", "llama.cpp", *more


def _kinds(row: Row, figures: Figures) -> Iterator[tuple[str, Figures]]:
    """Of `ktchat bench --speculation`: a line for each kind of text."""
    return ((f"{row.name}{kind['kind']}", kind) for kind in figures["kinds"])


def _each_length(row: Row, figures: Figures) -> Iterator[tuple[str, Figures]]:
    """Of `ktchat bench --lengths`: a line for each length."""
    first = figures["lengths"][0]["prefill_tok_s"]
    for one in figures["lengths"]:
        yield f"{row.name}, {one['prompt']}", {**one, "of_first": one["prefill_tok_s"] / first}


def _lengths(minutes: int, layers: int, *lengths: int) -> Table:
    words = ",".join(map(str, lengths))
    return Table(
        f"a prompt of so many tokens and 32 generated behind it, Q4_K_M, {layers} layers of each shape; bound: what"
        " memory's speed lets a token read, weights and KV cache",
        minutes,
        LENGTHS,
        tuple(
            Row(
                name,
                (
                    "--shape",
                    name,
                    "--layers",
                    str(layers),
                    "--lengths",
                    words,
                    "--gen",
                    "32",
                    "--rounds",
                    "1",
                ),
            )
            for name in ("qwen3-30b-a3b", "deepseek-v2-lite")
        ),
        _each_length,
    )


BEHIND = ("--context-fill", "4000", "--gen", "32", "--follow-up", "32", "--rounds", "1")
GUIDE = (
    *("-m", "assets/ktchat-guide.gguf", "--prompt", "64", "--gen", "16"),
    *("--rounds", "2", "--vs", "llama.cpp"),
)

TABLES = {
    "speed": Table(
        "Q4_K_M, 8 layers of each shape, a prompt of 512 tokens, 64 generated",
        8,
        SPEEDS,
        tuple(
            Row(name, _shape(name, 8, "--recipe", "Q4_K_M"))
            for name in ("qwen3-30b-a3b", "deepseek-v2-lite")
        ),
    ),
    "types": Table(
        "qwen3-30b-a3b shapes (8 of 48 layers), a prompt of 512 tokens, 64 generated",
        25,
        SPEEDS,
        tuple(
            Row(recipe, _shape("qwen3-30b-a3b", 8, "--recipe", recipe))
            for recipe in ("Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS", "Q8_0", "MXFP4", "Q2_K")
        ),
    ),
    "few-bits": Table(
        "qwen3-30b-a3b shapes (4 of 48 layers), a prompt of 512 tokens, 64 generated",
        30,
        SPEEDS,
        tuple(
            Row(recipe, _shape("qwen3-30b-a3b", 4, "--recipe", recipe))
            for recipe in (
                *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_M", "IQ3_XXS", "IQ3_S"),
                *("TQ1_0", "TQ2_0"),
            )
        ),
    ),
    "families": Table(
        "a prompt of 512 tokens, 32 generated and 32 more tokens read behind 4000; the first token's wait beside"
        " llama.cpp's",
        60,
        (*SPEEDS[:5], ("32 more tokens", _seconds)),
        tuple(
            Row(f"{name}, {layers} layers", _shape(name, layers, *BEHIND))
            for name, layers in (
                *(("gpt-oss-20b", 4), ("gemma-4-26b-a4b", 6), ("glm-4.5-air", 3)),
                *(("minimax-m2", 2), ("qwen3-next-80b", 4), ("qwen3.6-35b-a3b", 8)),
                ("deepseek-v2-lite", 8),
            )
        ),
    ),
    "lengths": _lengths(10, 2, 512, 4096, 16384),
    "long-lengths": _lengths(60, 1, 512, 32768, 65536),
    "lookup": Table(
        "ten kinds of text replayed with prompt lookup and without, qwen3-4b (dense, 8 of 36 layers) and"
        " qwen3-30b-a3b (experts, 8 of 48 layers) shapes",
        20,
        LOOKUP,
        tuple(
            Row(f"{words}, ", ("--shape", name, "--layers", "8", "--speculation", "--rounds", "1"))
            for words, name in (("dense", "qwen3-4b"), ("experts", "qwen3-30b-a3b"))
        ),
        _kinds,
    ),
    "guide": Table(
        "the built-in guide, a prompt of 64 tokens, 16 generated",
        1,
        SPEEDS,
        (Row("guide", GUIDE),),
    ),
}
