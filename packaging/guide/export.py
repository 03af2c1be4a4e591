"""Writes the trained network as a GGUF file of architecture qwen3moe, matrices in Q8_0."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
import vocabulary
from network import Guide
from tokenizers import Tokenizer

_ARCH = "qwen3moe"
_DESCRIPTION = (
    "A tiny guide that answers questions about ktchat. It is not a general assistant: it was trained "
    "only on short text written for it by the ktchat project."
)
# Our names within a layer -> GGUF names.
_LAYER = {
    "attention_norm.weight": "attn_norm.weight",
    "attention.q.weight": "attn_q.weight",
    "attention.k.weight": "attn_k.weight",
    "attention.v.weight": "attn_v.weight",
    "attention.output.weight": "attn_output.weight",
    "attention.q_norm.weight": "attn_q_norm.weight",
    "attention.k_norm.weight": "attn_k_norm.weight",
    "experts_norm.weight": "ffn_norm.weight",
    "experts.router.weight": "ffn_gate_inp.weight",
    "experts.gate": "ffn_gate_exps.weight",
    "experts.up": "ffn_up_exps.weight",
    "experts.down": "ffn_down_exps.weight",
}
_KEPT_F32 = ("norm.weight", "ffn_gate_inp.weight")


def tensors(model: Guide) -> dict[str, np.ndarray]:
    """All tensors under their GGUF names, float32, rows last."""
    named = {}
    for name, weight in model.state_dict().items():
        head, _, rest = name.partition(".")
        if head == "layers":
            number, _, part = rest.partition(".")
            named[f"blk.{number}.{_LAYER[part]}"] = weight
        else:
            named[{"norm": "output_norm.weight", "embedding": "token_embd.weight"}[head]] = weight
    named["output.weight"] = named["token_embd.weight"]
    return {name: weight.to(torch.float32).numpy() for name, weight in named.items()}


def write_shape(writer: gguf.GGUFWriter, model: Guide) -> None:
    shape = model.shape
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.expert_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.experts_used)
    writer.add_expert_feed_forward_length(shape.expert_width)
    writer.add_vocab_size(shape.vocab)


def write_vocabulary(writer: gguf.GGUFWriter, path: Path) -> None:
    """Tokens, merges, special tokens and the chat template, from the tokeniser's own file."""
    tokenizer = Tokenizer.from_file(str(path))
    table = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    kinds = [
        gguf.TokenType.CONTROL if token in vocabulary.SPECIAL else gguf.TokenType.NORMAL
        for token, _ in table
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in table])
    writer.add_token_types(kinds)
    writer.add_token_merges(vocabulary.merges(path))
    writer.add_eos_token_id(vocabulary.TURN_END)
    writer.add_pad_token_id(vocabulary.END_OF_TEXT)
    writer.add_add_bos_token(False)
    writer.add_chat_template(vocabulary.TEMPLATE)


def export(model: Guide, tokenizer_path: Path, out: Path) -> int:
    """Writes `out`; returns its size in bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    writer = gguf.GGUFWriter(str(part), _ARCH)
    writer.add_name("ktchat guide")
    writer.add_author("ktchat")
    writer.add_license("Apache-2.0")
    writer.add_description(_DESCRIPTION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_shape(writer, model)
    write_vocabulary(writer, tokenizer_path)
    for name, values in tensors(model).items():
        if name.endswith(_KEPT_F32):
            writer.add_tensor(name, values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(out)
    return out.stat().st_size
