"""What a model takes in the memory of a GPU beside its weights: KV cache, work space, reserve.

Pure arithmetic that follows what kernels/gpu allocates. What could not be read from there is named
`assumed` and waits for `make gpu-check`, whose bar is 2 % between planned and measured VRAM.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.machine.types import Gpu
from engine.plan.footprint import CHUNK, PAGE, state_bytes, window_positions
from engine.protocol import KvKind
from engine.spec.spec import AttentionSpec, Group, GroupSize, ModelSpec
from kernels.gpu.attention.plan import AttentionPlan, plan_attention, plan_latent_attention
from kernels.gpu.flashinfer.shapes import LATENT, LATENT_ROPE, supports
from kernels.gpu.flashinfer.workspace import WORKSPACE_BYTES
from kernels.gpu.sizes import (
    BLOCK_BYTES,
    STREAM_BUFFERS,
    buckets,
    buffer_bytes,
    recurrent_bytes,
)
from kernels.sizes import STREAM_CHUNKS

MIB = 1 << 20
CONTEXT = 400 * MIB
"""The CUDA context with torch's kernels, loaded as they are used. Assumed, after pytorch issue 107667
(about 300 MB with CUDA 11.7 and later); `make gpu-check machine` measures it beside this figure."""
CUBLAS = 32 * MIB
"""cuBLAS's workspace: torch's default on Hopper, 8 MiB elsewhere."""
GRAPHS = 64 * MIB
"""A captured pass: its nodes, and the pool of its one-token activations. Assumed."""
FLASH = WORKSPACE_BYTES + 8 * MIB
"""flashinfer's workspace and what its wrapper for prompts has of its own."""
UNEVEN = 1.1
"""Activations in torch's allocator, whose blocks do not fit each other exactly. Assumed."""
LARGE, ROUNDED = 10 * MIB, 2 * MIB
"""From `LARGE` on torch's allocator rounds up to multiples of `ROUNDED`: half of one on average."""

CHUNK_PARTS = (16, 8)
"""A chunk of `STREAM_CHUNKS` takes at most a sixteenth, or an eighth, of a GPU's free memory: 2048 tokens read each
expert a quarter as often as 512 do, 4096 only half as often as those."""

PROCESSORS = 132
"""Multiprocessors that splits of attention are counted for: an RTX 4090 has 128, an H200 132."""

SMALL_GPU = 17 << 30
"""A GPU of 16 GB or less; the driver counts a little differently."""

HOST = 700_000_000
"""RAM that torch and the CUDA driver take in the engine's process. Assumed."""

FIXED: tuple[Group, ...] = ("attention", "norms", "router", "shared", "dense", "other")
"""Groups of a layer that are where the layer is."""
_MATRICES: dict[Group, int] = {"shared": 3, "dense": 3, "experts": 3}


def reserve_bytes(gpu: Gpu) -> int:
    """VRAM that stays free: max(512 MiB, 3 %), and 1 GiB on small GPUs that draw the screen."""
    least = 1 << 30 if gpu.display and gpu.total <= SMALL_GPU else 512 * MIB
    return max(least, gpu.total * 3 // 100)


def prompt_chunk(spec: ModelSpec, free: int) -> int:
    """Tokens of a prompt in one pass where experts stream through GPUs that have `free` bytes each: the longest of
    `STREAM_CHUNKS` that takes no more of them than it is worth."""
    for tokens, part in zip(STREAM_CHUNKS, CHUNK_PARTS, strict=True):
        if spec.moe is None:
            break
        more = stream_buffers(spec, tokens) - stream_buffers(spec, CHUNK)
        if (chunk_bytes(spec, tokens) + more) * part <= free:
            return tokens
    return CHUNK


def stream_buffers(spec: ModelSpec, tokens: int) -> int:
    """Bytes of the buffers that experts pass through in chunks of so many tokens."""
    assert spec.moe is not None
    return STREAM_BUFFERS * buffer_bytes(_largest_expert(spec), spec.moe.experts, tokens)


def chunk_bytes(spec: ModelSpec, tokens: int) -> int:
    """Bytes that the activations of a pass of so many tokens take."""
    return int(UNEVEN * tokens * activation_bytes(spec))


def layer_memory_bytes(
    spec: ModelSpec, layer: int, context: int, kv: KvKind = "f16", chunk: int = CHUNK
) -> int:
    """Bytes of one layer's recurrent states, or of its KV cache: of a window with the copies that are kept, or
    whole pages, and one more than the context needs."""
    if spec.is_recurrent(layer):
        return state_bytes(spec) // spec.recurrent_layers
    if spec.kind(layer) == "window":
        return window_positions(spec, chunk) * _row(spec.attention("window").row_bytes, kv)
    return layer_kv_bytes(spec, context, kv)


def layer_read_bytes(spec: ModelSpec, layer: int, position: int, kv: KvKind = "f16") -> int:
    """Bytes of what one layer remembers that a token at `position` reads, and writes of recurrent states."""
    if spec.is_recurrent(layer):
        return 2 * spec.state_bytes // spec.recurrent_layers
    of = spec.attention(spec.kind(layer))
    if of.window:
        return min(position, of.window) * _row(of.row_bytes, kv)
    return position * layer_kv_row(spec, kv)


def attention_work(spec: ModelSpec, layer: int, tokens: int) -> float:
    """Products and sums of one layer's attention for a token beside those with weights, as if they were parameters:
    with keys and values of half of a prompt of so many tokens, or of a window. Latent attention is absorbed: its keys
    and values are the latents."""
    if spec.is_recurrent(layer):
        return 0.0
    if spec.mla is not None:
        return tokens / 2 * spec.heads * (2 * spec.mla.kv_lora + spec.mla.rope)
    of = spec.attention(spec.kind(layer))
    return min(tokens / 2, of.window or tokens) * of.heads * (of.head_dim + of.value_dim)


def layer_kv_bytes(spec: ModelSpec, context: int, kv: KvKind = "f16") -> int:
    """Bytes of the KV cache of one layer that has one: whole pages, and one more than the context needs."""
    return (-(-context // PAGE) + 1) * PAGE * layer_kv_row(spec, kv)


def layer_kv_row(spec: ModelSpec, kv: KvKind) -> int:
    """Bytes of one position in one layer that keeps the whole context."""
    return _row(-(-spec.kv_bytes_per_token // max(1, spec.attention_layers)), kv)


def _row(in_float16: int, kv: KvKind) -> int:
    """34 bytes for 32 features in 8 bits, in place of 64."""
    return in_float16 if kv == "f16" else -(-in_float16 * 17 // 32)


def work_bytes(
    spec: ModelSpec, context: int, flash: bool, streams: bool, chunk: int = CHUNK
) -> int:
    """Work space on each GPU, in bytes, for passes of up to `chunk` tokens.

    `flash`: flashinfer is there. `streams`: experts of RAM pass through it while a prompt is read.
    """
    total = CONTEXT + CUBLAS + GRAPHS + BLOCK_BYTES + 4 * spec.vocab + _rounding(spec)
    total += chunk_bytes(spec, chunk)
    total += attention_bytes(spec, context, flash, chunk)
    if streams and spec.moe is not None:
        total += stream_buffers(spec, chunk)
        if spec.moe.biases:  # whole beside the buffers
            total += 4 * spec.moe.experts * (2 * spec.moe.width + spec.hidden)
    return total


def takes_flash(spec: ModelSpec) -> bool:
    """Whether flashinfer has kernels for this model's heads; of sinks it knows nothing."""
    if spec.sinks:
        return False
    if spec.mla is not None:
        return (spec.mla.kv_lora, spec.mla.rope) == (LATENT, LATENT_ROPE)
    return supports(spec.head_dim, spec.value_dim)


def _largest_expert(spec: ModelSpec) -> int:
    experts = spec.moe.experts if spec.moe else 1
    sizes = (layer["experts"].device for layer in spec.layer_groups if "experts" in layer)
    return max(sizes, default=0) // experts


def activation_bytes(spec: ModelSpec) -> int:
    """Bytes a token of a chunk takes at most, in the parts of a layer one after the other.

    float32 but for what goes to the tensor cores: `kernels.gpu.quant.matmul.fp16_activations` holds its padded copy, the scaled
    values and two of float16 for a moment, 10 bytes a feature, beside the input's 4.
    """
    hidden, moe, mla = spec.hidden, spec.moe, spec.mla
    residual, own = 4 * hidden, 8 * hidden  # its norm beside it
    parts = [own + 10 * hidden]
    if mla is None:
        for of in spec.attentions:
            qkv = of.heads * of.head_dim + of.kv_heads * (of.head_dim + of.value_dim)
            parts.append(residual + 4 * qkv + 14 * of.heads * of.value_dim)
    else:
        # q, then absorbed, mixed and mixed made ready for v_b, at the same time.
        low = mla.q_lora + mla.kv_lora + mla.rope
        query = mla.nope + mla.rope
        parts.append(residual + 4 * low + spec.heads * (4 * query + (4 + 14) * mla.kv_lora + 12))
    if spec.delta is not None:
        net = spec.delta
        projected = 4 * (net.conv_features + net.values + 2 * net.value_heads)
        parts.append(residual + projected + recurrent_bytes(net, CHUNK) // CHUNK)
        parts.append(residual + 14 * net.values)
    # The router's input, the experts' sum and one of the two networks' inputs wait beside the other's.
    beside = 3 * 4 * hidden if moe is not None and moe.dense else 0
    own_sum = 4 * hidden if spec.post_norm else 0
    parts.append(own + beside + own_sum + 14 * spec.ffn)
    if moe is not None:
        ready = own + beside + 2 * hidden
        parts.append(ready + moe.top_k * max(14 * moe.width, 6 * moe.width + 4 * hidden))
        parts.append(own + 14 * moe.shared_width)
    return max(parts)


def attention_bytes(spec: ModelSpec, context: int, flash: bool, chunk: int = CHUNK) -> int:
    """Bytes that attention works in; layers that see a window do without flashinfer, and so do single tokens."""
    takes = flash and takes_flash(spec)
    kinds = [of for of in spec.attentions if of.window or not takes]
    others = [of for of in spec.attentions if of not in kinds]
    ours = sum(attention_scratch(spec, of, context, chunk) for of in kinds)
    ours += sum(_attention(spec, of, 1, context).scratch_bytes(1) for of in others)
    return FLASH * takes + ours


def attention_scratch(spec: ModelSpec, of: AttentionSpec, context: int, chunk: int = CHUNK) -> int:
    """Bytes of the parts that splits of attention leave: one plan for each bucket of new tokens."""
    sizes = buckets(chunk)
    return sum(_attention(spec, of, new, context).scratch_bytes(new) for new in sizes)


def _attention(spec: ModelSpec, of: AttentionSpec, queries: int, context: int) -> AttentionPlan:
    context = of.window + queries if of.window else max(1, context)
    if spec.mla is not None:
        row = spec.mla.kv_lora, spec.mla.rope
        return plan_latent_attention(1, queries, spec.heads, *row, context, PROCESSORS)
    heads = of.heads, max(1, of.kv_heads), of.head_dim, of.value_dim
    return plan_attention(1, queries, *heads, context, PROCESSORS)


def _rounding(spec: ModelSpec) -> int:
    """What torch's allocator rounds weights up by: half a step for each large matrix, on average."""
    count = 0
    for layer in spec.layer_groups:
        for group, size in layer.items():
            matrices = _MATRICES.get(group, 4 if spec.mla is None else 5)
            if size.device >= matrices * LARGE:
                count += matrices
    return count * ROUNDED // 2


def fixed_bytes(layer: Mapping[Group, GroupSize]) -> int:
    """Bytes on a GPU of a layer's weights but its routed experts."""
    return sum(layer[group].device for group in FIXED if group in layer)
