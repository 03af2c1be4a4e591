"""Pages of 2 MiB: whether the system gives them, and how much of this process lies in them."""

from __future__ import annotations

import mmap
from pathlib import Path

HUGE_PAGE = 2 << 20
_ASKED_FOR = 8 * HUGE_PAGE
_ROLLUP = Path("/proc/self/smaps_rollup")


def huge_page_bytes(rollup: Path = _ROLLUP) -> int | None:
    """Bytes of this process in pages of 2 MiB; None where the system does not say."""
    try:
        for line in rollup.read_text().splitlines():
            if line.startswith("AnonHugePages:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        return None
    return None


def huge_pages_come(rollup: Path = _ROLLUP) -> bool | None:
    """Whether memory that asks for pages of 2 MiB, as the CPU's kernels do, gets any; None where the system does
    not say."""
    before = huge_page_bytes(rollup)
    with mmap.mmap(-1, _ASKED_FOR, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without them
            return False
        for at in range(0, _ASKED_FOR, mmap.PAGESIZE):
            memory[at] = 1
        after = huge_page_bytes(rollup)
    return None if before is None or after is None else after > before
