"""Models as two plain dicts, metadata and tensor shapes, written with weights that are a hole.

Sizes may be real ones: the file is sparse. Types are those of `kernels.quants`, F32 unless named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernels.quants import BY_NAME
from tests.support import gguf_bytes as raw

Shapes = dict[str, tuple[int, ...]]


@dataclass
class Toy:
    """One model. `metadata` keys without a dot get the architecture in front."""

    architecture: str
    metadata: dict[str, Any]
    tensors: Shapes
    types: dict[str, str] = field(default_factory=dict)
    matrix_type: str = "F32"

    def write(self, folder: Path, name: str = "toy.gguf") -> Path:
        entries = [raw.entry("general.architecture", raw.STRING, self.architecture)]
        for key, value in self.metadata.items():
            known = key.startswith(("general.", "tokenizer."))
            entries.append(_entry(key if known else f"{self.architecture}.{key}", value))
        rows, offset = [], 0
        for tensor, shape in self.tensors.items():
            kind = BY_NAME[self.types.get(tensor, self._type(tensor, shape))]
            rows.append(raw.tensor(tensor, shape[::-1], kind.id, offset))
            size = kind.row_bytes(shape[-1])
            for count in shape[:-1]:
                size *= count
            offset += size + -size % 32
        path = folder / name
        with path.open("wb") as stream:
            stream.write(raw.File(entries, rows).build())
            stream.truncate(stream.tell() + offset)
        return path

    def _type(self, name: str, shape: tuple[int, ...]) -> str:
        plain = len(shape) == 1 or "ffn_gate_inp" in name
        return "F32" if plain else self.matrix_type


def _entry(key: str, value: Any) -> bytes:
    if isinstance(value, list):
        kind = raw.STRING if isinstance(value[0], str) else raw.U32
        return raw.entry(key, raw.ARRAY, (kind, value))
    kinds = {bool: raw.BOOL, int: raw.U32, float: raw.F32, str: raw.STRING}
    return raw.entry(key, kinds[type(value)], value)


def _attention(layer: int, hidden: int, heads: int, kv: int, head: int) -> Shapes:
    block = f"blk.{layer}."
    return {
        f"{block}attn_norm.weight": (hidden,),
        f"{block}attn_q.weight": (heads * head, hidden),
        f"{block}attn_k.weight": (kv * head, hidden),
        f"{block}attn_v.weight": (kv * head, hidden),
        f"{block}attn_output.weight": (hidden, heads * head),
        f"{block}ffn_norm.weight": (hidden,),
    }


def _dense(layer: int, hidden: int, width: int, kind: str = "") -> Shapes:
    block = f"blk.{layer}.ffn_"
    return {
        f"{block}gate{kind}.weight": (width, hidden),
        f"{block}up{kind}.weight": (width, hidden),
        f"{block}down{kind}.weight": (hidden, width),
    }


def _experts(layer: int, hidden: int, experts: int, width: int) -> Shapes:
    block = f"blk.{layer}.ffn_"
    return {
        f"{block}gate_inp.weight": (experts, hidden),
        f"{block}gate_exps.weight": (experts, width, hidden),
        f"{block}up_exps.weight": (experts, width, hidden),
        f"{block}down_exps.weight": (experts, hidden, width),
    }


def _ends(vocab: int, hidden: int) -> Shapes:
    return {
        "token_embd.weight": (vocab, hidden),
        "output_norm.weight": (hidden,),
        "output.weight": (vocab, hidden),
    }


def _common(layers: int, hidden: int, heads: int, kv: int, context: int) -> dict[str, Any]:
    return {
        "block_count": layers,
        "embedding_length": hidden,
        "context_length": context,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }


def qwen3moe(
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    kv: int = 2,
    head: int = 16,
    experts: int = 8,
    top_k: int = 2,
    width: int = 32,
    vocab: int = 96,
    context: int = 512,
) -> Toy:
    """Qwen3-MoE."""
    tensors = _ends(vocab, hidden)
    for layer in range(layers):
        tensors |= _attention(layer, hidden, heads, kv, head)
        tensors |= {f"blk.{layer}.attn_{which}_norm.weight": (head,) for which in "qk"}
        tensors |= _experts(layer, hidden, experts, width)
    metadata = _common(layers, hidden, heads, kv, context) | {
        "attention.key_length": head,
        "attention.value_length": head,
        "feed_forward_length": 3 * hidden,
        "expert_count": experts,
        "expert_used_count": top_k,
        "expert_feed_forward_length": width,
        "vocab_size": vocab,
        "rope.freq_base": 1e6,
    }
    return Toy("qwen3moe", metadata, tensors)


def qwen2moe(shared: int = 48) -> Toy:
    """Qwen2-MoE: biases, a gated shared expert, weights that are not normalised."""
    toy = qwen3moe()
    toy.architecture = "qwen2moe"
    toy.metadata["expert_shared_feed_forward_length"] = shared
    toy.tensors = {name: shape for name, shape in toy.tensors.items() if "k_norm" not in name}
    toy.tensors = {name: shape for name, shape in toy.tensors.items() if "q_norm" not in name}
    for layer in range(2):
        for which, rows in (("q", 64), ("k", 32), ("v", 32)):
            toy.tensors[f"blk.{layer}.attn_{which}.bias"] = (rows,)
        toy.tensors |= _dense(layer, 64, shared, "_shexp")
        toy.tensors[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = (64,)
    return toy


def llama(
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    kv: int = 2,
    width: int = 96,
    vocab: int = 96,
    experts: int = 0,
    top_k: int = 0,
    context: int = 512,
) -> Toy:
    """Llama, dense or with Mixtral's experts."""
    head = hidden // heads
    tensors = _ends(vocab, hidden)
    metadata = _common(layers, hidden, heads, kv, context)
    metadata |= {"feed_forward_length": width, "vocab_size": vocab, "rope.dimension_count": head}
    if experts:
        metadata |= {"expert_count": experts, "expert_used_count": top_k}
    for layer in range(layers):
        tensors |= _attention(layer, hidden, heads, kv, head)
        network = _experts(layer, hidden, experts, width) if experts else {}
        tensors |= network or _dense(layer, hidden, width)
    return Toy("llama", metadata, tensors)


def deepseek2(
    layers: int = 3,
    hidden: int = 64,
    heads: int = 4,
    dense: int = 1,
    ffn: int = 96,
    experts: int = 8,
    top_k: int = 2,
    width: int = 32,
    shared: int = 1,
    q_lora: int = 48,
    kv_lora: int = 32,
    nope: int = 16,
    rope: int = 8,
    value: int = 16,
    vocab: int = 96,
    context: int = 512,
    split: bool = True,
) -> Toy:
    """DeepSeek-V2 and V3."""
    tensors = _ends(vocab, hidden)
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {
            f"{block}attn_norm.weight": (hidden,),
            f"{block}attn_kv_a_mqa.weight": (kv_lora + rope, hidden),
            f"{block}attn_kv_a_norm.weight": (kv_lora,),
            f"{block}attn_output.weight": (hidden, heads * value),
            f"{block}ffn_norm.weight": (hidden,),
        }
        query = heads * (nope + rope)
        if q_lora:
            tensors[f"{block}attn_q_a.weight"] = (q_lora, hidden)
            tensors[f"{block}attn_q_a_norm.weight"] = (q_lora,)
            tensors[f"{block}attn_q_b.weight"] = (query, q_lora)
        else:
            tensors[f"{block}attn_q.weight"] = (query, hidden)
        if split:
            tensors[f"{block}attn_k_b.weight"] = (heads, kv_lora, nope)
            tensors[f"{block}attn_v_b.weight"] = (heads, value, kv_lora)
        else:
            tensors[f"{block}attn_kv_b.weight"] = (heads * (nope + value), kv_lora)
        if layer < dense:
            tensors |= _dense(layer, hidden, ffn)
        else:
            tensors |= _experts(layer, hidden, experts, width)
            tensors |= _dense(layer, hidden, shared * width, "_shexp")
            tensors[f"{block}exp_probs_b.bias"] = (experts,)
    metadata = _common(layers, hidden, heads, 1 if split else heads, context) | {
        "feed_forward_length": ffn,
        "leading_dense_block_count": dense,
        "attention.q_lora_rank": q_lora,
        "attention.kv_lora_rank": kv_lora,
        "attention.key_length": kv_lora + rope if split else nope + rope,
        "attention.value_length": kv_lora if split else value,
        "rope.dimension_count": rope,
        "expert_count": experts,
        "expert_used_count": top_k,
        "expert_feed_forward_length": width,
        "expert_shared_count": shared,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "vocab_size": vocab,
    }
    if split:
        metadata |= {
            "attention.key_length_mla": nope + rope,
            "attention.value_length_mla": value,
        }
    return Toy("deepseek2", metadata, tensors)


def glm4moe() -> Toy:
    """GLM-4.5: biases, a dense layer, a shared expert, a router with a bias, and a fourth block that is not run."""
    toy = qwen3moe(layers=4)
    toy.architecture = "glm4moe"
    toy.metadata |= {
        "nextn_predict_layers": 1,
        "leading_dense_block_count": 1,
        "rope.dimension_count": 8,
        "expert_shared_count": 1,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
    }
    tensors = {}
    for name, shape in toy.tensors.items():
        if "_norm.weight" not in name or "attn_norm" in name or name.startswith("output"):
            tensors[name] = shape
        elif "ffn_norm" in name:
            tensors[name.replace("ffn_norm", "post_attention_norm")] = shape
    for layer in range(4):
        block = f"blk.{layer}."
        for which, rows in (("q", 64), ("k", 32), ("v", 32)):
            tensors[f"{block}attn_{which}.bias"] = (rows,)
        tensors |= _dense(layer, 64, 32, "_shexp") if layer else _dense(0, 64, 192)
        tensors[f"{block}exp_probs_b.bias"] = (8,)
    tensors["blk.3.nextn.eh_proj.weight"] = (64, 128)
    first = ("blk.0.ffn_gate_inp", "blk.0.exp_probs_b")
    toy.tensors = {
        name: shape
        for name, shape in tensors.items()
        if not (name.startswith(first) or (name.startswith("blk.0.") and "_exps" in name))
    }
    return toy


def minimax_m2() -> Toy:
    """MiniMax-M2: norms of all heads together, a router with a bias."""
    toy = qwen3moe()
    toy.architecture = "minimax-m2"
    toy.metadata |= {"feed_forward_length": 32, "rope.dimension_count": 8, "expert_gating_func": 2}
    for layer in range(2):
        block = f"blk.{layer}."
        toy.tensors |= {f"{block}attn_q_norm.weight": (64,), f"{block}attn_k_norm.weight": (32,)}
        toy.tensors[f"{block}exp_probs_b.bias"] = (8,)
    return toy
