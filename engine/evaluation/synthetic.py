"""Models of known shapes with random weights, for benchmarks without a download.

Layer-true: every tensor has the size and the type of the real model's, so that a token reads as
many bytes and does as much work; only the vocabulary is smaller and layers are fewer. The weights
are rows drawn at random from a small quantised pool, so that a file takes seconds to make.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.common.units import byte_size
from engine.errors import KtchatError, RequestError
from engine.evaluation.quantise import quantise
from engine.evaluation.random_rows import RANDOM_TYPES, random_rows
from engine.gguf.writer import TensorPlan, Value, write_gguf
from engine.spec.recipes import RECIPES, tensor_type
from engine.spec.shapes import SHAPES, VOCABULARY, Shape, Windows, tensor_shapes
from kernels.ops import Bytes
from kernels.quants import BY_NAME

FORMAT = 2
"""Part of the files' names: a file of another format is stale."""

KEEP_DAYS = 7
POOL_ROWS = 256
PIECE = 16 << 20
"""Bytes written at once."""

SPARE = 1 << 30
"""Bytes of disk that stay free."""

Report = Callable[[int, int], None]

_T = TypeVar("_T")


def cache_folder() -> Path:
    """Where the files are kept: shapes/ under the user's cache folder for ktchat."""
    import platformdirs

    return platformdirs.user_cache_path("ktchat", appauthor=False) / "shapes"


def shape_file(
    name: str,
    layers: int | None = None,
    folder: Path | None = None,
    *,
    recipe: str = "",
    report: Report = lambda done, total: None,
) -> Path:
    """A model of the shape `name` with `layers` layers, made now or found in the cache folder.

    No `recipe`: that of its usual files.
    Raises `RequestError` for an unknown name or recipe and impossible layers, `KtchatError` when the
    disk has too little room or cannot be written.
    """
    shape = _known("shape", SHAPES, name)
    recipe = recipe or shape.recipe
    _known("recipe", RECIPES, recipe)
    count = shape.some_layers if layers is None else layers
    if not 1 <= count <= shape.layers:
        raise RequestError(
            f"{name} cannot have {count} layers", "", f"Use a number from 1 to {shape.layers}"
        )
    folder = cache_folder() if folder is None else folder
    path = folder / f"{name}-{count}-{recipe}-f{FORMAT}.gguf".lower()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder, path)
        if path.exists():
            path.touch()
            return path
        _write(path, name, shape, count, recipe, report)
    except OSError as error:
        raise KtchatError(
            f"The weights of {name} cannot be written",
            f"{path}: {error.strerror or error}",
            "Free some space, or set XDG_CACHE_HOME to a folder on another disk",
        ) from error
    return path


def _known(what: str, table: Mapping[str, _T], name: str) -> _T:
    if name not in table:
        raise RequestError(f"There is no {what} {name}", "", f"Use one of {', '.join(table)}")
    return table[name]


def _write(path: Path, name: str, shape: Shape, layers: int, recipe: str, report: Report) -> None:
    tensors = plan(shape, layers, recipe)
    needed = sum(tensor.nbytes for tensor in tensors) + SPARE
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise KtchatError(
            f"The weights of {name} do not fit on the disk",
            f"{path.parent} has {byte_size(free)} free, and {byte_size(needed)} are needed",
            "Use fewer layers (--layers), or set XDG_CACHE_HOME to a folder on another disk",
        )
    metadata = _metadata(name, shape, layers) | {"general.file_type": RECIPES[recipe].file_type}
    write_gguf(path, metadata | _vocabulary(), tensors, _Weights(shape), report)


def plan(shape: Shape, layers: int, recipe: str) -> list[TensorPlan]:
    """Every tensor of the file."""
    out = []
    for (name, sizes), layer in tensor_shapes(shape, layers):
        kind = BY_NAME["F32"]
        if len(sizes) > 1:
            kind = tensor_type(RECIPES[recipe], shape, name, layer, layers, sizes[-1])
        out.append(TensorPlan(name, kind, sizes))
    return out


def _clean(folder: Path, wanted: Path) -> None:
    """Remove files of other formats, those not used for a week, and what a killed writer left."""
    now = time.time()
    for path in folder.iterdir():
        if path == wanted or path.suffix not in (".gguf", ".part"):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process may clean too
            age = now - path.stat().st_mtime
            old_format = path.suffix == ".gguf" and not path.stem.endswith(f"-f{FORMAT}")
            dead = path.suffix == ".part" and age > 3600
            if old_format or dead or age > KEEP_DAYS * 86400:
                path.unlink()


class _Weights:
    """Bytes of each tensor: rows drawn from a pool of quantised random rows."""

    def __init__(self, shape: Shape) -> None:
        # Embeddings of size 1 tell the tokens apart, so that they go to different experts; the
        # output's share of a tied one has to stay small.
        self._embedding_gain = 2.0 if shape.tied else shape.hidden**0.5
        self._pools: dict[tuple[str, int, float], Bytes] = {}

    def __call__(self, tensor: TensorPlan) -> Iterator[Bytes]:
        rng = np.random.default_rng(zlib.crc32(tensor.name.encode()))
        if len(tensor.shape) == 1:
            bias = tensor.name.endswith(".bias")
            low, high = (-0.1, 0.1) if bias else (0.8, 1.2)
            if tensor.name.endswith("ssm_a"):
                low, high = -2.0, -0.1
            if tensor.name == "rope_freqs.weight":
                low, high = 1.0, 8.0
            values = rng.uniform(low, high, tensor.shape).astype(np.float32)
            yield values.view(np.uint8)
            return
        pool = self._pool(tensor)
        rows = max(1, PIECE // pool.shape[1])
        for first in range(0, tensor.rows, rows):
            count = min(rows, tensor.rows - first)
            yield np.take(pool, rng.integers(len(pool), size=count), axis=0)

    def _pool(self, tensor: TensorPlan) -> Bytes:
        cols = tensor.shape[-1]
        embedding = tensor.name == "token_embd.weight"
        gain = self._embedding_gain if embedding else _gain(tensor.name)
        key = (tensor.type.name, cols, gain)
        if key not in self._pools:
            rng = np.random.default_rng(cols)
            rows = min(POOL_ROWS, tensor.rows)
            values = rng.standard_normal((rows, cols), dtype=np.float32)
            values *= np.float32(gain / cols**0.5)
            make = random_rows if tensor.type.name in RANDOM_TYPES else quantise
            self._pools[key] = make(values, tensor.type).reshape(rows, -1)
        return self._pools[key]


def _gain(name: str) -> float:
    """How much larger the outputs of a matrix are than its inputs: the residual stays near 1."""
    gains = (("ffn_gate_inp", 2.0), ("attn_q", 1.5), ("attn_k", 1.5), ("ffn_down", 0.7))
    return next((gain for part, gain in gains if part in name), 1.0)


def _metadata(name: str, shape: Shape, layers: int) -> dict[str, Value]:
    key = shape.latent + shape.rope if shape.latent else shape.head
    entries: dict[str, Value] = {
        "context_length": 32768,
        "embedding_length": shape.hidden,
        "block_count": layers,
        "feed_forward_length": shape.ff or shape.expert_ff,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": 1 if shape.latent else shape.kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.key_length": key,
        "attention.value_length": shape.latent or shape.head,
        "rope.freq_base": shape.rope_base,
        "rope.dimension_count": shape.rope or shape.rotated or shape.head,
    }
    if shape.experts:
        entries |= {"expert_count": shape.experts, "expert_used_count": shape.top_k}
    if shape.experts and shape.architecture != "llama":
        entries["expert_feed_forward_length"] = shape.expert_ff
    if shape.delta is not None:
        net = shape.delta
        entries |= {
            "full_attention_interval": shape.attention_every,
            "expert_shared_feed_forward_length": shape.shared_ff,
            "rope.dimension_sections": [11, 11, 10, 0],
            "ssm.conv_kernel": net.kernel,
            "ssm.inner_size": net.values,
            "ssm.state_size": net.key,
            "ssm.time_step_rank": net.value_heads,
            "ssm.group_count": net.key_heads,
        }
    if shape.dense_layers:
        entries["leading_dense_block_count"] = min(shape.dense_layers, layers)
    if shape.shared_ff and shape.delta is None:
        entries["expert_shared_count"] = shape.shared_ff // shape.expert_ff
    if shape.latent:
        entries |= {
            "attention.q_lora_rank": shape.q_latent,
            "attention.kv_lora_rank": shape.latent,
            "attention.key_length_mla": shape.nope + shape.rope,
            "attention.value_length_mla": shape.value,
        }
    if shape.windows is not None:
        entries |= _window_metadata(shape, shape.windows, layers)
    prefixed = {f"{shape.architecture}.{k}": v for k, v in {**entries, **shape.settings}.items()}
    return {
        "general.architecture": shape.architecture,
        "general.name": f"{name}, {layers} of {shape.layers} layers, random weights",
        **prefixed,
    }


def _window_metadata(shape: Shape, windows: Windows, layers: int) -> dict[str, Value]:
    in_windows = [shape.sees_window(layer) for layer in range(layers)]
    heads = [windows.kv_heads if one else shape.kv_heads for one in in_windows]
    return {
        "attention.sliding_window": windows.positions,
        "attention.sliding_window_pattern": in_windows,
        "attention.head_count_kv": heads,
        "attention.key_length_swa": windows.head,
        "attention.value_length_swa": windows.head,
        "rope.dimension_count_swa": windows.head,
    }


def _vocabulary() -> dict[str, Value]:
    """Bytes, the control tokens of ChatML, and tokens that no text becomes."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    tokens = [chr(byte) if byte in kept else chr(next(moved)) for byte in range(256)]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    unused = [f"<|unused {i}|>" for i in range(VOCABULARY - len(tokens) - len(control))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*tokens, *control, *unused],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(control) + [5] * len(unused),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.add_bos_token": False,
    }
