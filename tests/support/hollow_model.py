"""llama.cpp asked of models that have a table of tensors and no weights: what its quantiser would write, what memory it takes."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as library

from engine.catalog.numbers import Numbers
from engine.catalog.tensors import MIXES, tensors
from engine.common.llama_log import capture_log
from tests.support.gguf_bytes import ARRAY, BOOL, F32, STRING, U32, File, entry, tensor

_LINE = re.compile(r"\] (\S+) +- \[.*?\], type = +(\S+), size = .*?MiB(?: -> .*?MiB \((\S+)\))?")


_KV = re.compile(r"KV buffer size = +([\d.]+) MiB|RS buffer size = +([\d.]+) MiB")


def types_written(numbers: Numbers, quant: str, folder: Path) -> dict[str, str]:
    """The type that its quantiser gives each tensor of a float16 file of these numbers."""
    settings = library.llama_model_quantize_default_params()
    settings.ftype, settings.dry_run, settings.nthread = MIXES[quant].file_type, True, 1
    with _listening() as lines, _hollow(numbers, folder) as path:
        failed = library.llama_model_quantize(
            bytes(path), bytes(folder / "none.gguf"), ctypes.byref(settings)
        )
        assert not failed, "".join(lines)[-2000:]
    found = _LINE.finditer("".join(lines))
    return {line[1]: (line[3] or line[2]).upper() for line in found}


def memory_taken(numbers: Numbers, context: int, folder: Path) -> tuple[float, float]:
    """Bytes of the KV caches and of the recurrent state of a model of these numbers, to some KiB.

    It is opened as `engine.runtimes.llama_cpp` opens it, so every tensor must be there, and none besides.
    """
    with _listening() as lines, _hollow(numbers, folder) as path:
        load = library.llama_model_default_params()
        load.use_extra_bufts = False
        model = library.llama_model_load_from_file(bytes(path), load)
        assert model, "".join(lines)[-2000:]
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context, context, 64
        opened = library.llama_init_from_model(model, settings)
        library.llama_free(opened)
        library.llama_model_free(model)
    found = [line.groups() for line in _KV.finditer("".join(lines))]
    caches, states = (sum(float(line[part] or 0) for line in found) for part in (0, 1))
    return caches * (1 << 20), states * (1 << 20)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What it says meanwhile."""
    lines: list[str] = []

    @library.llama_log_callback  # type: ignore[untyped-decorator]
    def listen(level: int, text: bytes, data: object) -> None:
        lines.append(text.decode(errors="replace"))

    library.llama_log_set(listen, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        capture_log(library)


@contextmanager
def _hollow(numbers: Numbers, folder: Path) -> Iterator[Path]:
    """A float16 file: its header, and a hole where the weights would be."""
    path = folder / "hollow.gguf"
    file, size = File(entries=list(_entries(numbers))), 0
    for name, sizes, kind, _ in tensors(numbers, "F16"):
        file.tensors.append(tensor(name, sizes[::-1], kind.id, size))
        size += -(-math.prod(sizes[:-1]) * kind.row_bytes(sizes[-1]) // 32) * 32
    header = file.build()
    with path.open("wb") as out:
        out.write(header)
        out.truncate(len(header) + size)
    yield path
    path.unlink()


def _entries(numbers: Numbers) -> Iterator[bytes]:
    yield entry("general.architecture", STRING, numbers.architecture)
    yield entry("tokenizer.ggml.model", STRING, "none")
    kinds = {float: F32, list: ARRAY, int: U32}
    for key, item in _settings(numbers).items():
        held = (
            (BOOL if isinstance(item[0], bool) else U32, item) if isinstance(item, list) else item
        )
        yield entry(f"{numbers.architecture}.{key}", kinds[type(item)], held)


def _settings(numbers: Numbers) -> dict[str, Any]:
    """What llama.cpp wants of the architectures of the catalogue; much of it has no say in types."""
    layers, rotated = numbers.layers + numbers.extra_layers, numbers.rope or numbers.head
    found: dict[str, Any] = {
        "block_count": layers,
        "nextn_predict_layers": numbers.extra_layers,
        "context_length": numbers.context,
        "embedding_length": numbers.hidden,
        "feed_forward_length": numbers.ffn or numbers.expert_width,
        "vocab_size": numbers.vocab,
        "attention.head_count": numbers.heads,
        "attention.head_count_kv": 1 if numbers.kv_lora else numbers.kv_heads,
        "attention.key_length": numbers.kv_lora + numbers.rope or numbers.head,
        "attention.value_length": numbers.kv_lora or numbers.head,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": rotated,
        "expert_count": numbers.experts,
        "expert_used_count": numbers.top_k,
        "expert_feed_forward_length": numbers.expert_width,
        "expert_shared_count": numbers.shared_width // numbers.expert_width,
        "expert_gating_func": 2,
        "leading_dense_block_count": numbers.dense_layers,
    }
    if numbers.kv_lora:
        found["attention.key_length_mla"] = numbers.nope + numbers.rope
        found["attention.value_length_mla"] = numbers.value
        found["attention.kv_lora_rank"] = numbers.kv_lora
        found["attention.q_lora_rank"] = numbers.q_lora
    if numbers.index_heads:
        found["attention.indexer.head_count"] = numbers.index_heads
        found["attention.indexer.key_length"] = numbers.index_head
        found["attention.indexer.top_k"] = 2048
    if numbers.delta is not None:
        found["ssm.conv_kernel"] = numbers.delta.kernel
        found["ssm.state_size"] = numbers.delta.key
        found["ssm.group_count"] = numbers.delta.key_heads
        found["ssm.time_step_rank"] = numbers.delta.value_heads
        found["ssm.inner_size"] = numbers.delta.values
        found["full_attention_interval"] = numbers.linear_every
        found["rope.dimension_sections"] = [11, 11, 10, 0]
    if numbers.window:
        found["attention.sliding_window"] = numbers.window
    if numbers.window_head:
        windows = [numbers.has_window(layer) for layer in range(layers)]
        heads = [numbers.window_kv_heads if window else numbers.kv_heads for window in windows]
        found["attention.sliding_window_pattern"] = windows
        found["attention.head_count_kv"] = heads
        found["attention.key_length_swa"] = found["attention.value_length_swa"] = (
            numbers.window_head
        )
        found["embedding_length_per_layer_input"] = 0
    return found
