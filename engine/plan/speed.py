"""How fast a model will be on a machine, and what limits it; and how fast it was.

Decoding reads every active weight and the KV cache once a token, so its speed follows from the
bytes and the measured reading speed of the memory. Prefilling is arithmetic, unless reading the
weights once a chunk takes longer. Figures of real runs are kept and replace the prediction. Plans with
GPUs are predicted in `engine.plan.gpu_speed`.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.common import measurements
from engine.common.units import gb_s
from engine.errors import KtchatError
from engine.gguf.file import GGUFFile
from engine.machine.probe import here, machine_key
from engine.machine.types import Cpu, Hardware
from engine.plan.footprint import kv_row_bytes
from engine.protocol import Computed, Figures, KvKind, RuntimeName
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec

DECODE_EFFICIENCY: dict[RuntimeName, float] = {"native": 0.88, "llama.cpp": 0.50}
"""Part of the memory's reading speed that decoding reaches, `LAYER_SECONDS` apart.

native: with it the predictions for `ktchat bench --layers 8 --prompt 512 --gen 64` on 2 cores with AVX-512
are 125, 107 and 74 tok/s where 124, 109 (qwen3-30b-a3b at 51 and 43 GB/s) and 79 (deepseek-v2-lite at 42)
were measured, medians of 5 rounds, all other work paused. llama.cpp 0.3.36: 0.47 to 0.53 of the limit in the
same rounds (tests/bench/LOG.md). To be measured again when kernels change; the figures of a person's own
runs replace it anyway.
"""

LAYER_SECONDS = 50e-6
"""Time a layer takes besides reading: calls, barriers, small vectors. Source: decoding with models
of two and three layers that fit the cache, 58 to 121 us a layer, embedding and output included."""

GOPS_PER_CORE: dict[RuntimeName, dict[str, float]] = {
    "native": {"avx512": 430.0, "avx2": 200.0, "plain": 5.0},
    "llama.cpp": {"avx512": 85.0, "avx2": 42.0, "plain": 5.0},
}
"""10^9 operations (a multiplication and an addition are two) a second and core while prefilling.

native: 955 tok/s of a 512-token prompt, qwen3-30b-a3b with 8 layers (0.91 * 10^9 operations a token), 2
cores with AVX-512 VNNI at 2.6 GHz, other work paused (tests/bench/LOG.md); llama.cpp: 188 tok/s. AVX2 is
assumed to reach somewhat less than half, neither a small part."""

DECODE_AT = 1024
"""Tokens in the context at which decoding is predicted, or half the context if it is shorter."""
PROMPT = 512
"""Tokens of prompt for which prefilling is predicted: one chunk."""
LEAST_PROMPT, LEAST_REPLY = 64, 8
"""Shorter prompts and replies say nothing of a speed."""
KEPT_RUNS = 5
UNMEASURED = "the memory's speed is not measured yet: ktchat doctor measures it"

_BOOK = "speeds"


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second and what limits them; None when nothing is known."""

    decode_tok_s: float | None = None
    prefill_tok_s: float | None = None
    bound_words: str = ""
    prefill_bound_words: str = ""
    measured: bool = False
    """`decode_tok_s` is what a run reached."""
    prefill_measured: bool = False


def predict(spec: ModelSpec, hardware: Hardware, context: int, kv: KvKind = "f16") -> Speed:
    """The speed of a model on a machine's CPU; measured figures of this machine come first."""
    bandwidth = hardware.memory.best_read_gb_s
    past = {} if hardware.assumed else recorded(spec, hardware)
    decode = _decode(spec, bandwidth, context, kv)
    prefill, prefill_bound = _prefill(spec, hardware.cpu, bandwidth)
    return Speed(
        decode_tok_s=past.get("decode_tok_s") or decode,
        prefill_tok_s=past.get("prefill_tok_s") or prefill,
        bound_words=(f"limited by RAM bandwidth: {gb_s(bandwidth)}" if bandwidth else UNMEASURED),
        prefill_bound_words=prefill_bound,
        measured="decode_tok_s" in past,
        prefill_measured="prefill_tok_s" in past,
    )


def record_speed(
    spec: ModelSpec,
    hardware: Hardware,
    *,
    device: Computed = "CPU",
    decode_tok_s: float = 0.0,
    reply_tokens: int = 0,
    prefill_tok_s: float = 0.0,
    prompt_tokens: int = 0,
) -> bool:
    """Keep what a run on this machine, computed by `device`, reached; whether anything could be kept.

    Replies under `LEAST_REPLY` tokens and prompts under `LEAST_PROMPT` (cached tokens left out) say
    nothing of a speed and are not kept.
    """
    useful = {
        name: value
        for name, value, tokens, least in (
            ("decode_tok_s", decode_tok_s, reply_tokens, LEAST_REPLY),
            ("prefill_tok_s", prefill_tok_s, prompt_tokens, LEAST_PROMPT),
        )
        if 0 < value < 1e7 and tokens >= least
    }
    if not useful:
        return False
    book = measurements.read(_BOOK)
    machine = _dict(book.get(machine_key(hardware.cpu, hardware.memory)))
    entry = _dict(machine.get(speed_key(spec, device)))
    for name, value in useful.items():
        entry[name] = [*_floats(entry.get(name)), value][-KEPT_RUNS:]
    machine[speed_key(spec, device)] = entry
    book[machine_key(hardware.cpu, hardware.memory)] = machine
    return measurements.write(_BOOK, book)


def record_run(path: Path, figures: Figures, device: Computed = "CPU") -> bool:
    """Keep the figures of one turn with the model at `path`; whether that was possible.

    Reads the file's header, some tens of milliseconds. Never raises.
    """
    try:
        with GGUFFile.open(path) as file:
            spec = read_spec(file)
    except KtchatError:
        return False
    return record_speed(
        spec,
        here(),
        device=device,
        decode_tok_s=figures.one_by_one_tok_s,
        reply_tokens=figures.reply_tokens,
        prefill_tok_s=figures.prefill_tok_s,
        prompt_tokens=figures.prompt_tokens - figures.cached_tokens,
    )


def recorded(spec: ModelSpec, hardware: Hardware, device: Computed = "CPU") -> dict[str, float]:
    """Medians of what this model reached on this machine's `device`; empty when it never ran there."""
    machine = measurements.read(_BOOK).get(machine_key(hardware.cpu, hardware.memory))
    entry = _dict(_dict(machine).get(speed_key(spec, device)))
    values = {name: _floats(entry.get(name)) for name in ("decode_tok_s", "prefill_tok_s")}
    return {name: statistics.median(runs) for name, runs in values.items() if runs}


def speed_key(spec: ModelSpec, device: Computed = "CPU") -> str:
    """What measurements of a model are kept under: models of one shape and type are as fast."""
    moe = spec.moe
    experts = f"-{moe.experts}x{moe.width}-{moe.top_k}" if moe else f"-{spec.ffn}"
    return f"{spec.architecture}-{spec.layers}x{spec.hidden}{experts}-{spec.quantisation}{'' if device == 'CPU' else f'-{device}'}"


def token_bytes(spec: ModelSpec, context: int, kv: KvKind = "f16") -> int:
    """Bytes that decoding one token reads."""
    position = min(DECODE_AT, context // 2)
    return spec.active_bytes_per_token + memory_read_bytes(spec, position, kv)


def memory_read_bytes(spec: ModelSpec, position: int, kv: KvKind = "f16") -> int:
    """Bytes of KV caches and recurrent states that a token at `position` reads on the CPU, and writes of states."""
    bounded = 2 * spec.state_bytes
    if spec.windowed is not None:
        bounded += min(position, spec.windowed.window) * kv_row_bytes(spec.window_row_bytes, kv)
    return position * kv_row_bytes(spec.kv_bytes_per_token, kv) + bounded


def _decode(spec: ModelSpec, bandwidth: float, context: int, kv: KvKind) -> float | None:
    if not bandwidth:
        return None
    reached = bandwidth * 1e9 * DECODE_EFFICIENCY[spec.runtime]
    return 1.0 / (token_bytes(spec, context, kv) / reached + spec.layers * LAYER_SECONDS)


def _prefill(spec: ModelSpec, cpu: Cpu, bandwidth: float) -> tuple[float | None, str]:
    """Tokens a second of a prompt of one chunk, and the bound in words."""
    gops = cpu.cores * GOPS_PER_CORE[spec.runtime][cpu.isa]
    # The output is computed for the last token only, embeddings are looked up.
    active = spec.active_parameters - spec.groups_parameters("output", "embedding")
    seconds = 2 * max(1, active) * PROMPT / (gops * 1e9)
    words = f"limited by {cpu.cores} core{'s' * (cpu.cores != 1)}"
    if bandwidth:
        reading = spec.weights_bytes / (bandwidth * 1e9)
        if reading > seconds:
            return PROMPT / reading, f"limited by RAM bandwidth: {gb_s(bandwidth)}"
    return PROMPT / seconds, words


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _floats(value: Any) -> list[float]:
    if not isinstance(value, list):
        return []
    return [float(v) for v in value if isinstance(v, int | float) and 0 < v < 1e7]
