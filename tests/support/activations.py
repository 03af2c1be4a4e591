"""`python -m tests.support.activations`: what a chunk's activations take at most in the GPU's op set.

Runs layers on torch's meta device, where tensors have sizes and no memory, with kernels that do nothing.
Prints a JSON object: for each model the bytes measured and those that plans count.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # isort: skip  # before a kernel is imported

import dataclasses
import json
import math
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import InterpretedFunction

from engine.model.layers import Layer, LayerAt, Memory, Span
from engine.model.transformer import cache_shape
from engine.plan.footprint import CHUNK, PAGE
from engine.plan.gpu_footprint import activation_bytes
from engine.spec.spec import ModelSpec
from engine.spec.tensor_table import wanted_tensors
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.quant.weight import PackedWeight
from kernels.quants import BY_NAME
from kernels.recurrent import StateShape
from tests.support.plans import (
    DEEPSEEK_V3,
    GPT_OSS,
    LLAMA_70B,
    MIXTRAL,
    QWEN3_30B,
    QWEN36_35B,
    spec,
)

META = torch.device("meta")


class Peak(TorchDispatchMode):
    """Counts the bytes of live tensors; those of `known` are not counted."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._live: dict[int, list[int]] = {}
        self._now = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        if key not in self._live:
            self._live[key] = [0, size]
            self._now += size
            self.bytes = max(self.bytes, self._now)
        self._live[key][0] += 1
        weakref.finalize(tensor, self._drop, key)

    def _drop(self, key: int) -> None:
        self._live[key][0] -= 1
        if not self._live[key][0]:
            self._now -= self._live.pop(key)[1]


class Weights:
    """In a loader's place: tensors of the shapes that the spec says."""

    def __init__(self, model: ModelSpec) -> None:
        self._shapes = {wanted.name: wanted.shape for wanted in wanted_tensors(model)}

    def matrix(self, name: str) -> PackedWeight:
        kind = "F32" if name.endswith("gate_inp.weight") else "Q8_0"
        return PackedWeight.empty(BY_NAME[kind], self._shapes[name], META)

    def vector(self, name: str, factor: float = 1.0) -> torch.Tensor:
        return torch.empty(self._shapes[name], device=META)

    def flat_vector(self, name: str) -> torch.Tensor:
        return torch.empty(math.prod(self._shapes[name]), device=META)

    def expert_biases(self, name: str) -> PackedWeight:
        count, features = self._shapes[name]
        return PackedWeight.empty(BY_NAME["F32"], (count, 1, features), META)

    def rows(self, name: str, parts: Sequence[Any]) -> list[PackedWeight]:
        *stack, rows, cols = self._shapes[name]
        counts = [len(np.arange(rows)[part]) for part in parts]
        return [PackedWeight.empty(BY_NAME["Q8_0"], (*stack, n, cols), META) for n in counts]

    def vector_parts(self, name: str, parts: Sequence[Any]) -> list[torch.Tensor | None]:
        return [None] * len(parts)

    def optional_vector(self, name: str) -> torch.Tensor | None:
        return self.vector(name) if name in self._shapes else None

    def latent_projections(self, prefix: str, heads: int, mla: Any) -> tuple[Any, Any]:
        return self.matrix(f"{prefix}attn_k_b.weight"), self.matrix(f"{prefix}attn_v_b.weight")


def peak(model: ModelSpec, number: int) -> int:
    """Bytes of the residual and of all that layer `number` holds beside it at once, for one chunk."""
    ops, weights = GpuOps(META), Weights(model)
    rope = model.rope.to_rope(model.mla.nope if model.mla else 0)
    at = LayerAt(number, model.kind(number), 0)
    layer: Layer[Any, Any, Any] = Layer(ops, weights, model, rope, at)  # type: ignore[arg-type]
    pages = CHUNK // PAGE
    if at.kind == "window":
        cache = ops.kv_cache(model.attention("window").window_cache(1, PAGE, 1))
    else:
        cache = ops.kv_cache(cache_shape(model, pages, PAGE, 1))
    state = ops.recurrent_state(StateShape(1, 1, model.delta)) if model.delta else None
    memory: Memory = {"full": cache, "window": cache, "recurrent": state}
    span = Span(np.arange(pages, dtype=np.int32), 0, CHUNK)
    x = torch.empty(CHUNK, model.hidden, device=META)
    layer.run(x, memory, span, last=False)  # makes what is kept
    kept = [cache.keys, cache.values, x]
    kept += [state.conv, state.matrices] if state is not None else []
    with Peak(kept) as found:
        layer.run(x, memory, span, last=False)
    return found.bytes + x.nbytes


def gemma() -> ModelSpec:
    """Layers of Gemma 4 26B-A4B that see the whole context."""
    other = spec(QWEN3_30B)
    assert other.moe is not None
    return dataclasses.replace(
        other,
        **{"hidden": 2816, "heads": 16, "kv_heads": 2, "head_dim": 512, "value_dim": 512},
        **{"ffn": 2112, "activation": "geglu", "post_norm": True, "value_norm": True},
        keys_are_values=True,
        moe=dataclasses.replace(other.moe, width=704, dense=True, scales=True),
    )


def main() -> None:
    InterpretedFunction.run = lambda *args, **options: None
    dense = dataclasses.replace(spec(LLAMA_70B), moe=None)
    models = {"qwen3": spec(QWEN3_30B), "mixtral": spec(MIXTRAL), "deepseek": spec(DEEPSEEK_V3)}
    models |= {"qwen3.6": spec(QWEN36_35B), "gpt-oss": spec(GPT_OSS, "MXFP4")}
    models |= {
        "gemma 4": gemma(),
        "gemma 4, dense": dataclasses.replace(gemma(), ffn=21504, moe=None),
    }
    out = {
        name: (
            max(peak(model, number) for number in {0, model.layers - 1}),
            CHUNK * activation_bytes(model),
        )
        for name, model in {**models, "llama": dense}.items()
    }
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main()
