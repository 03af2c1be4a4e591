"""Tiny random models of every architecture that our engine runs, as GGUF files.

Shapes are odd where real ones are (query heads * head length other than the hidden size, key and
value lengths that differ, groups of 2, 4 and 7 query heads); every column count of the routed
experts is a multiple of 256, so that all types fit. Weights are scaled so that the residual stream
stays near 1, attention is far from uniform and logits have a standard deviation of 1 to 3.

Routing is decisive: a few features of each token's embedding hold a permutation of well separated
levels that no layer writes to, and routers read mostly those, so that a rounding difference does
not choose other experts. The rest of the router's input moves the weights with the context.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from engine.evaluation.quantise import quantise as quantise_rows
from engine.evaluation.random_rows import RANDOM_TYPES, random_rows
from engine.spec.recipes import fitting_type
from kernels.ops import Bytes, Floats
from kernels.quants import BY_NAME, IK_TYPES, MATRIX_TYPES, QuantType
from tests.support import shared, vocabulary
from tests.support.tiny_shapes import AS_WRITTEN, SHAPES, Shape
from tests.support.tiny_weights import TinyWeights

MODELS = tuple(SHAPES)
MOE_MODELS = tuple(key for key, shape in SHAPES.items() if shape.experts)
TYPES = tuple(sorted(MATRIX_TYPES - IK_TYPES - {"Q2_0"}))  # gguf-py cannot write Q2_0 yet
"""Every type that llama.cpp quantises to and our engine reads."""


def tiny_model(
    architecture: str,
    folder: Path,
    *,
    variant: str = "",
    expert_type: str = "F16",
    matrix_type: str = "F32",
    seed: int = 0,
) -> Path:
    """Write a tiny model into `folder` and return its path; a file that is there is used again.

    It is made once in a run of the tests, unless the test changed its shape; in `shared.folder()` itself it is
    nobody's to change.

    Routed experts get `expert_type`, the other matrices (embedding and output too) `matrix_type`;
    routers, norms and biases are F32.
    """
    variant = variant or next(name for key, name in SHAPES if key == architecture)
    path = folder / f"{variant}-{expert_type}-{matrix_type}-{seed}.gguf".lower()
    if path.exists():
        return path

    def write(path: Path) -> None:
        write_tiny_model(path, architecture, variant, expert_type, matrix_type, seed)

    key = architecture, variant
    if not shared.is_there() or SHAPES[key] != AS_WRITTEN[key]:
        write(path)
    elif (made := shared.once(shared.folder() / path.name, write)) != path:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(made.read_bytes())
        part.replace(path)
    return path


def write_tiny_model(
    path: Path, architecture: str, variant: str, expert_type: str, matrix_type: str, seed: int
) -> None:
    """Write a tiny model to `path`."""
    shape = SHAPES[architecture, variant]
    writer = gguf.GGUFWriter(None, architecture)
    tokens = vocabulary.sentence_pieces() if shape.pieces else vocabulary.byte_level()
    _write_metadata(writer, architecture, variant, shape, tokens)
    weights = TinyWeights(shape, len(tokens["tokenizer.ggml.tokens"]), seed)
    for name, values in weights.tensors().items():
        kind = expert_type if "_exps" in name else matrix_type
        kind = "F32" if values.ndim == 1 or is_never_quantised(name) else kind
        _add_tensor(writer, name, values, kind)
    _finish(writer, path)


def is_never_quantised(name: str) -> bool:
    """llama.cpp's quantiser leaves routers, short convolutions and biases as they are."""
    return "ffn_gate_inp" in name or "ssm_conv1d" in name or name.endswith(".bias")


def quantise(
    path: Path, type_name: str, *, only_experts: bool = True, routers: bool = False
) -> Path:
    """A copy of a tiny model next to it, its F32 expert (or all) matrices in another type.

    Rows that hold no blocks of the type get what llama.cpp's quantiser takes instead; routers (unless
    `routers`), norms and biases stay F32. The embedding and the output never fall below Q6_K (Q8_0). Blocks of
    the IQ1 and IQ2 types are random ones of the right size.
    """
    kind = "experts" if only_experts else "all"
    kind += "-routers" if routers else ""
    target = path.with_name(f"{path.stem}-{kind}-{type_name}.gguf".lower())
    if target.exists():
        return target
    if shared.is_there() and path.parent == shared.folder():
        return shared.once(
            target, lambda part: _write_quantised(path, part, type_name, only_experts, routers)
        )
    _write_quantised(path, target, type_name, only_experts, routers)
    return target


def _write_quantised(
    path: Path, target: Path, type_name: str, only_experts: bool, routers: bool
) -> None:
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(None, str(reader.fields["general.architecture"].contents()))
    for name, entry in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = entry.types[-1] if len(entry.types) > 1 else None
            writer.add_key_value(name, entry.contents(), entry.types[0], sub_type)
    for tensor in reader.tensors:
        kept = is_never_quantised(tensor.name) and not (routers and "gate_inp" in tensor.name)
        fixed = kept or tensor.tensor_type != gguf.GGMLQuantizationType.F32
        chosen = "_exps" in tensor.name or not only_experts
        new = type_name if chosen and not fixed and tensor.data.ndim > 1 else "F32"
        if tensor.name in ("token_embd.weight", "output.weight") and BY_NAME[new].bits < 6.5:
            new = "Q6_K"
        if fixed:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            _add_tensor(writer, tensor.name, np.asarray(tensor.data), new)
    _finish(writer, target)


def _write_metadata(
    writer: gguf.GGUFWriter, architecture: str, variant: str, shape: Shape, tokens: dict[str, Any]
) -> None:
    entries: dict[str, Any] = {
        "context_length": 1024,
        "embedding_length": shape.hidden,
        "block_count": shape.layers + shape.extra_layers,
        "feed_forward_length": shape.ff,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10000.0 if architecture in ("llama", "deepseek2") else 1000000.0,
    }
    if shape.extra_layers:
        entries["nextn_predict_layers"] = shape.extra_layers
    if shape.delta is not None:
        net = shape.delta
        entries |= {
            "ssm.conv_kernel": net.kernel,
            "ssm.inner_size": net.values,
            "ssm.state_size": net.key,
            "ssm.time_step_rank": net.value_heads,
            "ssm.group_count": net.key_heads,
        }
    if not shape.latent and not architecture.startswith("qwen2"):
        entries |= {"attention.key_length": shape.head, "attention.value_length": shape.head}
    if shape.rotated or architecture in ("llama", "gpt-oss"):
        entries["rope.dimension_count"] = shape.rotated or shape.head
    if shape.experts:
        entries |= {"expert_count": shape.experts, "expert_used_count": shape.top_k}
        if architecture in ("llama", "minimax-m2"):
            entries["feed_forward_length"] = shape.expert_ff
        if architecture != "llama":
            entries["expert_feed_forward_length"] = shape.expert_ff
    if shape.dense_layers:
        entries["leading_dense_block_count"] = shape.dense_layers
    if shape.shared_gate:
        entries["expert_shared_feed_forward_length"] = shape.shared_ff
    elif shape.shared_ff:
        each = shape.metadata.get("expert_shared_feed_forward_length", shape.expert_ff)
        entries["expert_shared_count"] = shape.shared_ff // each
    if shape.gemma is not None:
        entries |= shape.gemma.metadata(shape.layers, shape.head, shape.kv_heads)
    if shape.latent:
        entries |= _latent_metadata(shape)
    writer.add_name(f"tiny {architecture} {variant}")
    for name, value in {**entries, **shape.metadata}.items():
        _add_value(writer, f"{architecture}.{name}", value)
    for name, value in tokens.items():
        _add_value(writer, name, value)


def _latent_metadata(shape: Shape) -> dict[str, Any]:
    key = shape.nope + shape.rope
    entries: dict[str, Any] = {
        "attention.q_lora_rank": shape.q_latent,
        "attention.kv_lora_rank": shape.latent,
        "attention.head_count_kv": 1 if shape.split else shape.heads,
        "attention.key_length": shape.latent + shape.rope if shape.split else key,
        "attention.value_length": shape.latent if shape.split else shape.value,
        "rope.dimension_count": shape.rope,
        "expert_weights_scale": 1.0,
    }
    if shape.split:
        entries |= {"attention.key_length_mla": key, "attention.value_length_mla": shape.value}
    return entries


def _add_value(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    add |= {str: writer.add_string, list: writer.add_array}
    add[type(value)](name, value)


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: Floats, type_name: str) -> None:
    kind = fitting_type(BY_NAME[type_name], values.shape[-1])
    if kind.name == "F32":
        writer.add_tensor(name, np.ascontiguousarray(values))
        return
    rows, where = np.unique(values.reshape(-1, values.shape[-1]), axis=0, return_inverse=True)
    blocks = _blocks(rows.tobytes(), rows.shape[1], kind)[where.ravel()]
    data = blocks.reshape(*values.shape[:-1], -1)
    writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind.name])


@lru_cache(maxsize=256)
def _blocks(data: bytes, cols: int, kind: QuantType) -> Bytes:
    """Quantised rows; kept, because the experts of all layers share rows."""
    rows = np.frombuffer(data, dtype=np.float32).reshape(-1, cols)
    if kind.name in RANDOM_TYPES:
        return random_rows(rows, kind)
    return quantise_rows(rows, kind).reshape(len(rows), -1)


def _finish(writer: gguf.GGUFWriter, path: Path) -> None:
    part = path.with_suffix(".writing")
    writer.write_header_to_file(part)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)
