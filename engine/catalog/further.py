"""Tensors that the shapes of `engine.spec.shapes` do not have: by their names in a layer, outermost size first."""

from __future__ import annotations

from engine.catalog.numbers import Numbers
from engine.spec.shapes import Named


def whole(numbers: Numbers) -> list[Named]:
    """Tensors outside every layer."""
    matrix = (numbers.vocab, numbers.hidden)
    out: list[Named] = [
        ("token_embd.weight", matrix),
        ("output_norm.weight", (numbers.hidden,)),
    ]
    if not numbers.tied:
        out.append(("output.weight", matrix))
    if numbers.architecture == "gemma4":
        out.append(("rope_freqs.weight", (numbers.head // 2,)))
    return out


def added(numbers: Numbers, layer: int) -> list[Named]:
    """Tensors of a layer beyond the usual ones."""
    indexer = _indexer(numbers) if numbers.index_heads else []
    return [*indexer, *(_predictor(numbers) if layer >= numbers.layers else [])]


def _indexer(numbers: Numbers) -> list[Named]:
    """What chooses the positions that a token sees (DeepSeek-V3.2)."""
    head = numbers.index_head
    return [
        ("indexer.k_norm.weight", (head,)),
        ("indexer.k_norm.bias", (head,)),
        ("indexer.proj.weight", (numbers.index_heads, numbers.hidden)),
        ("indexer.attn_k.weight", (head, numbers.hidden)),
        ("indexer.attn_q_b.weight", (numbers.index_heads * head, numbers.q_lora)),
    ]


def _predictor(numbers: Numbers) -> list[Named]:
    """What a layer that predicts further tokens has besides."""
    hidden = numbers.hidden
    norms: list[Named] = [
        (f"nextn.{name}.weight", (hidden,)) for name in ("enorm", "hnorm", "shared_head_norm")
    ]
    own: list[Named] = [
        (f"nextn.{name}.weight", (numbers.vocab, hidden))
        for name in ("embed_tokens", "shared_head_head")
    ]
    joined: Named = ("nextn.eh_proj.weight", (hidden, 2 * hidden))
    return [*norms, joined, *(own if numbers.extra_embeddings else [])]
