"""What programs of a launch tell each other, and the host: who is the last to end, and that a request is complete.

Nobody waits. A program adds one to a counter; the one that finds all others counted goes on with what they have left,
so that a step which needs all of a launch's results needs no launch of its own. After the threadfence reduction of
CUDA's samples.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.quant.words import INTERPRETED


@triton.jit
def is_last(counter, count):
    """Whether this program is the last of `count` that come here. It may then read what the others have stored, by
    loads that ask the common cache (".cg"). The counter, 0 before, is 0 again."""
    tl.debug_barrier()  # all of our threads have stored
    last = tl.atomic_add(counter, 1, sem="acq_rel") == count - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def fence():
    """What this program's threads have stored can be seen by all of its threads, past their own caches too."""
    if not INTERPRETED:
        tl.inline_asm_elementwise(
            "fence.acq_rel.gpu; mov.u32 $0, 0;", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )
    tl.debug_barrier()


@triton.jit
def raise_flag(flag):
    """*flag = 1 in the host's memory, once it can see all that this program has stored there.

    By one thread: the host lowers the flag when it sees it, and a second store would raise it again.
    """
    if INTERPRETED:
        tl.store(flag, 1)
    else:
        tl.inline_asm_elementwise(
            "fence.acq_rel.sys; mov.u32 $0, 0;",
            "=r,l",
            [flag],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
        tl.debug_barrier()  # every thread's stores are behind its fence
        tl.inline_asm_elementwise(
            """{
                .reg .pred first;
                .reg .b32 word;
                mov.u32 word, %tid.x;
                setp.eq.u32 first, word, 0;
                mov.u32 word, 1;
                @first st.release.sys.global.b32 [$1], word;
                mov.u32 $0, 0;
            }""",
            "=r,l",
            [flag],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
