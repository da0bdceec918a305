"""Memory behaviour of the C library for networks on the CPU."""

from __future__ import annotations

import ctypes

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1


def keep_freed_memory() -> bool:
    """Lets this process reuse large freed blocks instead of giving each back to the system.

    Feature maps of a large image are blocks of 100 MB; by default each comes fresh from the system,
    page by page, which costs a fifth of a forward pass. The process then keeps its peak size until
    it ends. Only the first thread of a process gains: the C library keeps such blocks for no other.
    For programs of their own, such as pipelines; a library should not decide this.

    Returns:
        Whether the C library knows these settings (glibc does).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
