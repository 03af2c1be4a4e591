"""Tiny random models of architectures that only llama.cpp runs: attention, and a recurrent state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.support.vocabulary import byte_level

HIDDEN, LAYERS, HEADS, FF = 64, 2, 4, 128
CONV, STATE, RANK = 4, 8, 4


def internlm2(folder: Path) -> Path:
    """A dense transformer with grouped-query attention."""
    kv = HIDDEN // 2
    metadata = {
        "feed_forward_length": FF,
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS // 2,
        "rope.freq_base": 10000.0,
    }
    layer = {
        "attn_norm.weight": (HIDDEN,),
        "attn_q.weight": (HIDDEN, HIDDEN),
        "attn_k.weight": (kv, HIDDEN),
        "attn_v.weight": (kv, HIDDEN),
        "attn_output.weight": (HIDDEN, HIDDEN),
        "ffn_norm.weight": (HIDDEN,),
        "ffn_gate.weight": (FF, HIDDEN),
        "ffn_up.weight": (FF, HIDDEN),
        "ffn_down.weight": (HIDDEN, FF),
    }
    return _write(folder / "internlm2.gguf", "internlm2", metadata, layer)


def mamba(folder: Path) -> Path:
    """A state-space model: its memory cannot be cut, only cleared."""
    inner = 2 * HIDDEN
    metadata = {
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "ssm.conv_kernel": CONV,
        "ssm.inner_size": inner,
        "ssm.state_size": STATE,
        "ssm.time_step_rank": RANK,
    }
    layer = {
        "attn_norm.weight": (HIDDEN,),
        "ssm_in.weight": (2 * inner, HIDDEN),
        "ssm_conv1d.weight": (inner, CONV),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (RANK + 2 * STATE, inner),
        "ssm_dt.weight": (inner, RANK),
        "ssm_dt.bias": (inner,),
        "ssm_a": (inner, STATE),
        "ssm_d": (inner,),
        "ssm_out.weight": (HIDDEN, inner),
    }
    return _write(folder / "mamba.gguf", "mamba", metadata, layer)


def _write(
    path: Path, architecture: str, metadata: dict[str, Any], layer: dict[str, tuple[int, ...]]
) -> Path:
    tokens = byte_level()
    size = len(tokens["tokenizer.ggml.tokens"])
    common = {
        "context_length": 1024,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    entries = {f"{architecture}.{name}": value for name, value in (common | metadata).items()}
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in (entries | tokens).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add |= {str: writer.add_string, list: writer.add_array}
        add[type(value)](name, value)
    shapes = {"token_embd.weight": (size, HIDDEN), "output_norm.weight": (HIDDEN,)}
    shapes["output.weight"] = (size, HIDDEN)
    shapes |= {f"blk.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        values = random.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)
        if "norm" in name:
            values = np.ones(shape, np.float32)
        elif name.endswith("ssm_a"):
            values = -np.abs(values)
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
