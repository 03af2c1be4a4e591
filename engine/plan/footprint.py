"""What a model takes in the memory of the CPU's engine: weights, KV cache, work space.

Pure arithmetic over a spec; tests/engine/test_plan_measured.py holds it against real processes.
"""

from __future__ import annotations

from engine.protocol import KvKind
from engine.spec.spec import Group, LayerKind, ModelSpec
from kernels.sizes import PAGE_SIZE, PROMPT_CHUNK
from kernels.window import WindowPages

PAGE = PAGE_SIZE
"""Positions in a page of the KV cache; the cache has one page more than the context needs."""
CHUNK = PROMPT_CHUNK
"""Tokens prefilled at once."""

SNAPSHOT_BYTES = 512 << 20
"""Recurrent states and windows of earlier positions take about so much memory,"""
MIN_SNAPSHOTS, MAX_SNAPSHOTS = 4, 32
"""and are never fewer or more than these."""

PROCESS = 60_000_000
"""Bytes of the engine's process with Python, numpy and the native libraries, without a model.

Measured, as is what follows, by the child of tests/engine/test_plan_measured.py."""
VOCABULARY = 380
"""Bytes a token of the vocabulary takes in llama.cpp's tables: 356, 488 and 374 were measured for
Qwen2, Llama 3 and DeepSeek."""
PACKED = 1.375
"""A feature of a network's hidden layer, in float32 and packed as int8, in floats."""


def weight_bytes(spec: ModelSpec) -> dict[Group, int]:
    """Bytes of each group of tensors in memory, with what loading makes of them."""
    weights: dict[Group, int] = {
        group: size.resident or size.bytes
        for group, size in spec.groups.items()
        if group != "unused"
    }
    if spec.mla is not None and not spec.mla.split and spec.native:
        weights["attention"] = weights.get("attention", 0) + _transposed_bytes(spec)
    return weights


def _transposed_bytes(spec: ModelSpec) -> int:
    """Old MLA files: the key half of attn_kv_b is kept transposed in float16, the value half copied."""
    assert spec.mla is not None
    attention = spec.groups["attention"]
    bits = 8 * attention.bytes / max(1, attention.parameters)
    per_layer = spec.heads * spec.mla.kv_lora * (2 * spec.mla.nope + bits / 8 * spec.mla.value)
    return int(spec.layers * per_layer)


def kv_row_bytes(in_float16: int, kv: KvKind) -> int:
    """Bytes on the CPU of a position that takes so many in float16: in 16 bits with a scale for each head, in 8 bits
    34 for 32 features."""
    return -(-in_float16 * 65 // 64) if kv == "f16" else -(-in_float16 * 17 // 32)


def quantised_kv_obstacle(spec: ModelSpec) -> str:
    """Why a KV cache in 8 bits is impossible, which has a scale for every 32 features; empty: it is not."""
    if not spec.native:
        return "llama.cpp runs the model"
    mla = spec.mla
    sizes = [size for of in spec.attentions for size in (of.head_dim, of.value_dim)]
    sizes = sizes if mla is None else [mla.kv_lora, mla.rope]
    wrong = [size for size in sizes if size % 32]
    return f"its heads of {wrong[0]} features are no multiple of 32" if wrong else ""


def kv_bytes(spec: ModelSpec, context: int, kv: KvKind = "f16") -> int:
    """Bytes of the KV cache of the whole context, whole pages."""
    pages = -(-context // PAGE) + 1
    return pages * PAGE * kv_row_bytes(spec.kv_bytes_per_token, kv)


def state_slots(spec: ModelSpec) -> int:
    """Positions of which what is bounded is kept, the current one among them; 1 where nothing is."""
    if not spec.keeps_state:
        return 1
    one = spec.state_bytes + _windows(spec).copy * PAGE * spec.window_row_bytes
    return 1 + min(MAX_SNAPSHOTS, max(MIN_SNAPSHOTS, SNAPSHOT_BYTES // one))


def _windows(spec: ModelSpec, chunk: int = CHUNK) -> WindowPages:
    return WindowPages(spec.windowed.window if spec.windowed is not None else 0, chunk=chunk)


def state_bytes(spec: ModelSpec) -> int:
    """Bytes of all recurrent states that are kept."""
    return state_slots(spec) * spec.state_bytes


def window_bytes(spec: ModelSpec, kv: KvKind = "f16") -> int:
    """Bytes of the KV cache of layers that see a window, with the copies that are kept."""
    return window_positions(spec) * kv_row_bytes(spec.window_row_bytes, kv)


def window_positions(spec: ModelSpec, chunk: int = CHUNK) -> int:
    """Positions of the KV cache of one layer that sees a window, those of kept copies among them."""
    return _windows(spec, chunk).pages(state_slots(spec)) * PAGE


def memory_bytes(spec: ModelSpec, context: int, kv: KvKind = "f16") -> dict[LayerKind, int]:
    """Bytes of what layers of each kind remember, on the CPU."""
    return {
        "full": kv_bytes(spec, context, kv),
        "window": window_bytes(spec, kv),
        "recurrent": state_bytes(spec),
    }


def workspace_bytes(spec: ModelSpec, chunk: int = CHUNK) -> int:
    """Bytes of the process, the vocabulary and the buffers of one chunk of so many tokens."""
    moe = spec.moe
    attention = max((of.heads * of.value_dim for of in spec.attentions), default=0)
    if spec.delta is not None:
        # Convolved queries, keys and values, then outputs, beside what a chunk's solver takes.
        attention = max(attention, 2 * spec.delta.conv_features + 2 * spec.delta.values)
    if spec.mla is not None:
        attention = spec.heads * (spec.mla.nope + spec.mla.rope + 3 * spec.mla.kv_lora)
    widest = max(spec.ffn, moe.top_k * moe.width if moe else 0, moe.shared_width if moe else 0)
    # Native scratch memory is as large as the op that needs most; activations wait beside it.
    scratch = max(attention, int(PACKED * widest))
    rows = (of.heads * (of.head_dim + of.value_dim) for of in spec.attentions)
    waiting = 2 * spec.hidden + max(rows, default=0)
    return PROCESS + spec.vocab * (VOCABULARY + 4) + 4 * chunk * (scratch + waiting)
