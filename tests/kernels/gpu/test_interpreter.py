"""The interpreter that repeats less builds what Triton's own builds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kernels.gpu.gpu_cases import ON_GPU

BUILD = """
import os, sys
os.environ["TRITON_INTERPRET"] = "1"
import triton.language as tl
from triton.runtime import interpreter
from tests.support.interpreter import repeat_less
if sys.argv[1] == "less":
    repeat_less()
scalars = [tl.float32, tl.int1, tl.bfloat16, tl.pointer_type(tl.int8), tl.pointer_type(tl.int8, 3)]
for scalar in scalars * 2:
    for shape in ([1], [16], [tl.constexpr(4), 8], [2, 2, 2]):
        block = tl.block_type(scalar, shape)
        tensor = tl.tensor(None, block)
        print(vars(block), block.shape.values, block.nbytes if scalar is tl.float32 else "")
        print(tensor, tensor.shape.values, tensor.numel, tensor.dtype, tensor.type is block)
        print(getattr(tensor.dtype, "address_space", ""), interpreter._get_np_dtype(block))
    alone = tl.tensor(None, scalar)
    print(alone, alone.shape.values, alone.numel, interpreter._get_np_dtype(scalar))
for wrong in ([], [3], [tl.constexpr(1.0)]):
    try:
        print(tl.block_type(tl.float32, wrong))
    except (TypeError, ValueError) as error:
        print(repr(error))
"""


@pytest.mark.skipif(ON_GPU, reason="the interpreter is asked")
def test_types_and_tensors_are_as_before() -> None:
    own, less = (
        subprocess.run(
            [sys.executable, "-c", BUILD, which], capture_output=True, text=True, check=True
        ).stdout
        for which in ("own", "less")
    )
    assert own.count("\n") > 100 and less == own
