"""Router, experts and dense feed-forward on the CPU: shape checks, and one native call an op."""

from __future__ import annotations

import numpy as np

from kernels.choices import FEW
from kernels.cpu.buffers import (
    Array,
    Weight,
    address,
    bias_pointers,
    expect,
    expect_ints,
    expect_matrices,
    expect_matrix,
    rows_of,
    vector_pointer,
)
from kernels.cpu.context import NativeContext
from kernels.ops import ACTIVATIONS, Activation, Biases, Routing


class FeedForwardOps(NativeContext):
    """The ops of `kernels.ops.Ops` between attention and the next layer."""

    def route(
        self,
        x: Array,
        norm: Weight,
        eps: float,
        router: Weight,
        bias: Weight | None,
        routing: Routing,
        logit_bias: Weight | None = None,
        scales: Weight | None = None,
    ) -> tuple[Array, Array, Array]:
        cols = router.cols
        n, experts = rows_of(x, cols), expect_matrix(router, cols)
        normed, weights = self._buffer(n, cols), self._buffer(n, routing.top_k)
        ids = self._buffer(n, routing.top_k, np.int32)
        self._call(
            "kt_route",
            address(x),
            n,
            vector_pointer(norm, cols),
            eps,
            router.pointer,
            vector_pointer(bias, experts),
            vector_pointer(logit_bias, experts),
            self._routing(routing, experts),
            vector_pointer(scales, experts),
            address(normed),
            address(ids),
            address(weights),
        )
        if n <= FEW:
            self._chosen.append(ids)
        return normed, ids, weights

    def moe_add(
        self,
        x: Array,
        ids: Array,
        weights: Array,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: Array,
        biases: Biases[Weight] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        n, top_k = rows_of(x, gate.cols), weights.shape[-1]
        expect_ints(ids, (n, top_k))
        expect(weights, n, top_k)
        self._expect_ffn(gate, up, down, n, residual)
        self._call(
            "kt_moe_add",
            address(x),
            n,
            address(ids),
            address(weights),
            top_k,
            gate.pointer,
            up.pointer,
            down.pointer,
            address(residual),
            *bias_pointers(biases, gate, down),
            ACTIVATIONS.index(activation),
        )

    def ffn_add(
        self,
        x: Array,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: Array,
        scaler: Weight | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        n = rows_of(x, gate.cols)
        self._expect_ffn(gate, up, down, n, residual)
        if gate.count != 1:
            raise ValueError(f"wanted one expert, got {gate.count}")
        self._call(
            "kt_ffn_add",
            address(x),
            n,
            gate.pointer,
            up.pointer,
            down.pointer,
            vector_pointer(scaler, gate.cols),
            address(residual),
            ACTIVATIONS.index(activation),
        )

    @staticmethod
    def _expect_ffn(gate: Weight, up: Weight, down: Weight, n: int, residual: Array) -> None:
        if not gate.count:
            raise ValueError("wanted matrices, got a vector")
        for each in (gate, up):
            expect_matrices(each, gate.count, gate.rows, gate.cols)
        expect_matrices(down, gate.count, down.rows, gate.rows)
        expect(residual, n, down.rows)
