"""What the host has computed, added where the device needs it: read from pinned memory, without a copy."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.dependents import behind_previous, early
from kernels.gpu.elementwise import COLUMNS, check_rows


def add(x: X, y: X, flag: X | None = None) -> None:
    """x (n, features) += y, which may lie in pinned memory of the host; then flag (1,) int32 is 0."""
    n, features = x.shape
    check_rows(n, features, x, y)
    _add[(n, triton.cdiv(features, COLUMNS))](
        *(x, y, flag, x.stride(0), y.stride(0)),
        FEATURES=features,
        BLOCK=min(COLUMNS, triton.next_power_of_2(features)),
        num_warps=4,
        **early(x.device),
    )


@triton.jit
def _add(
    x: tl.tensor,
    y: tl.tensor,
    flag: tl.tensor,
    x_stride: tl.tensor,
    y_stride: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    behind_previous()
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = d < FEATURES
    total = tl.load(x + row * x_stride + d, mask=inside, other=0.0)
    total += tl.load(y + row * y_stride + d, mask=inside, other=0.0)
    tl.store(x + row * x_stride + d, total, mask=inside)
    if flag is not None:
        tl.store(flag, 0)
