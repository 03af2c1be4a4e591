"""`GpuOps`: the op set on one GPU. Weights stay in their GGUF type, activations are float32 tensors.

Chooses kernels by the number of rows and launches them; nothing here waits for the device but
`to_numpy`. Knows no model. One thread at a time uses a GpuOps, on torch's current stream.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor as X

from kernels import ggml
from kernels.gpu import elementwise, quantised
from kernels.gpu.attention_ops import (
    AttentionOps,
    GpuCache,
    Weight,
    as_matrix,
    as_vector,
)
from kernels.gpu.gpu_graph import GraphForward, enabled
from kernels.gpu.inputs import Table, to_device
from kernels.gpu.quantised_layout import BLOCK
from kernels.gpu.quantised_weight import PackedWeight, repack
from kernels.gpu.routing import route as choose_experts
from kernels.ops import Floats, Ints, Ops, Routing, Tensor

__all__ = ["GpuCache", "GpuOps"]


class GpuOps(AttentionOps):
    """`kernels.ops.Ops` in Triton for the current CUDA device.

    Device "cpu" is for tests: it needs TRITON_INTERPRET=1 before a kernel is imported, and raises
    `ValueError` without.
    """

    name = "gpu"

    def __init__(self, device: torch.device | str = "cuda") -> None:
        device = torch.device(device)
        if device.type == "cuda":
            current = torch.cuda.current_device()
            if device.index not in (None, current):
                raise ValueError(f"{device} is not the current device, cuda:{current}")
            device = torch.device("cuda", current)
        elif os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError(f"on {device} the GPU's kernels run in Triton's interpreter only")
        super().__init__(device)

    # Weights

    def matrix(self, tensor: Tensor) -> Weight:
        return repack(tensor, self.device)

    def table(self, tensor: Tensor) -> Weight:
        """The table stays on the host: a token reads one row of it, which is copied."""
        return Table(tensor, torch.zeros(1, tensor.cols, device=self.device))

    def repacks(self, tensor: Tensor) -> bool:
        return True

    def vector(self, tensor: Tensor) -> Weight:
        return torch.from_numpy(ggml.dequantise(tensor).copy()).to(self.device)

    # Buffers

    def record(self, forward: Callable[[Ints, Ints, int], X]) -> Callable[[Ints, Ints, int], X]:
        return GraphForward(self._inputs, forward) if enabled(self.device) else forward

    def embed(self, table: Weight, tokens: Ints) -> X:
        assert isinstance(table, Table), "a table is made by `table`"
        return self._inputs.rows(table, tokens)

    def last_row(self, x: X) -> X:
        return x[-1:]

    def from_numpy(self, x: Floats) -> X:
        return to_device(x, self.device)

    def to_numpy(self, x: X) -> Floats:
        array: Floats = x.cpu().numpy()
        return array

    # Dense ops

    def norm(self, x: X, norm: Weight, eps: float) -> X:
        out = torch.empty(x.shape, device=self.device)
        elementwise.rms_norm(x, as_vector(norm), eps, out)
        return out

    def norm_linear(
        self,
        x: X,
        norm: Weight | None,
        eps: float,
        weights: Sequence[Weight],
        biases: Sequence[Weight | None] | None = None,
    ) -> list[X]:
        outs = _linears(x if norm is None else self.norm(x, norm, eps), weights)
        for out, bias in zip(outs, biases or (), strict=bool(biases)):
            if bias is not None:
                out += as_vector(bias)
        return outs

    def linear_add(self, x: X, weight: Weight, residual: X) -> None:
        _linears(x, [weight], residual)

    def add(self, x: X, residual: X) -> None:
        residual += x

    # Feed-forward

    def route(
        self, x: X, norm: Weight, eps: float, router: Weight, bias: Weight | None, routing: Routing
    ) -> tuple[X, X, X]:
        normed = self.norm(x, norm, eps)
        (logits,) = _linears(normed, [router])
        ids = torch.empty(len(x), routing.top_k, dtype=torch.int32, device=self.device)
        weights = torch.empty(len(x), routing.top_k, device=self.device)
        choose_experts(logits, None if bias is None else as_vector(bias), routing, ids, weights)
        return normed, ids, weights

    def moe_add(
        self, x: X, ids: X, weights: X, gate: Weight, up: Weight, down: Weight, residual: X
    ) -> None:
        n, top_k = ids.shape
        pairs = ids.view(-1)
        if n <= quantised.FEW:
            hidden = [quantised.expert_gemv(x, as_matrix(part), pairs) for part in (gate, up)]
            out = quantised.expert_gemv(_swiglu(*hidden), as_matrix(down), pairs)
        else:
            together = quantised.groups(pairs, as_matrix(gate).shape[0])
            halves = quantised.halves(x)
            hidden = [
                quantised.grouped_gemm(halves, as_matrix(part), together) for part in (gate, up)
            ]
            halves = quantised.halves(_swiglu(*hidden))
            out = quantised.grouped_gemm(halves, as_matrix(down), together)
        # One batched product sums each token's experts into its row of the residual.
        residual.view(n, 1, -1).baddbmm_(weights.view(n, 1, top_k), out.view(n, top_k, -1))

    def ffn_add(
        self,
        x: X,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: X,
        scaler: Weight | None = None,
    ) -> None:
        hidden = _swiglu(*_linears(x, [gate, up]))
        if scaler is None:
            _linears(hidden, [down], residual)
            return
        (update,) = _linears(hidden, [down])
        elementwise.gated_add(x, as_vector(scaler).view(-1), update, residual)


_: type[Ops[X, Weight, GpuCache]] = GpuOps


def _swiglu(gate: X, up: X) -> X:
    """silu(gate) * up, in the place of `gate`."""
    elementwise.swiglu(gate, up, gate)
    return gate


def _linears(x: X, weights: Sequence[Weight], out: X | None = None) -> list[X]:
    """x (n, cols) times each weight, (n, rows), added to `out` where there is one.

    Few rows are multiplied in float32. Many go to the tensor cores in float16, but for matrices of
    float32: routers are, and a choice of experts shall not hang on rounding.
    """
    packed = [as_matrix(weight) for weight in weights]
    if len(x) <= quantised.FEW:
        return [quantised.gemv(x, weight, out) for weight in packed]
    exact = [weight.type.name == "F32" for weight in packed]
    halves = None if all(exact) else quantised.halves(x)
    results = []
    for weight, in_float32 in zip(packed, exact, strict=True):
        if in_float32:
            product = x @ _dense(weight).T
            results.append(product if out is None else out.add_(product))
        else:
            assert halves is not None
            results.append(quantised.gemm(halves, weight, out))
    return results


def _dense(weight: PackedWeight) -> X:
    """A float32 matrix where it lies, (rows, cols): its one plane is the file's rows, filled up."""
    width = weight.blocks * BLOCK
    return weight.planes[0][: weight.rows * width].view(weight.rows, width)[:, : weight.cols]
