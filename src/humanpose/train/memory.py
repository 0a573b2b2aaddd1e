"""Memory of a training step is kept for the next one."""

from __future__ import annotations

import ctypes
import sys

# mallopt(3): what is larger than the first comes fresh from the kernel and goes back to it at once;
# what is free at the top of the heap beyond the second goes back.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_NEVER = 2**31 - 1  # bytes; the parameter is an int


def keep_memory() -> bool:
    """Let the C library hold what a step frees, and give it to the next.

    A step on the CPU allocates the same gigabytes again and again, and the kernel clears each page
    that it hands out: on a virtual machine of two cores that took more than half of the time. glibc
    itself learns to keep blocks of up to 32 MB, no larger ones.

    Returns:
        Whether this C library could be told; others than glibc are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
