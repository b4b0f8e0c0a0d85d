"""How a program keeps memory on a CPU."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress
from pathlib import Path

# Parameters of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = 2**31 - 1
PAGE = mmap.PAGESIZE
MOST_KEPT = 512  # MB


def keep_freed_memory() -> bool:
    """Let this process keep the memory that tensors free, for the next ones: on a CPU a third less time.

    By default glibc gives every large block back to the system, and each new one costs a page fault for every 4 kB of
    it. And it has an arena for every thread, so that an app grows with its visitors. Afterwards the process holds what
    its largest call needed until it ends. The `studio` command and the app call it; a library should not, so a script
    that wants it does it itself, before its first thread starts.

    Returns:
        Whether this C library can be told so: glibc can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # another C library; Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER) and mallopt(M_ARENA_MAX, 1))


def resident() -> int:
    """Memory that this process holds, MB; 0 where the system does not say so as Linux does."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * PAGE // 2**20
    return 0


def give_back() -> bool:
    """Give the memory that is free back to the system; whether this C library can do that: glibc can."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, TypeError):
        return False


class Ceiling:
    """Bounds what `keep_freed_memory` makes a process keep, by giving it back when it has become too much.

    What small calls need is kept, so that they stay fast; what one large call needed is not held for ever.

    Args:
        most: MB that may be kept above what was held the last time that memory was given back.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most = most
        self._held = resident()

    def hold(self) -> bool:
        """Called after every call; whether memory was given back."""
        if resident() - self._held <= self.most:
            self._held = min(self._held, resident())
            return False
        done = give_back()
        self._held = resident()
        return done
