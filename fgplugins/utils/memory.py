"""Memory that a process has freed, kept for what it does next."""

from __future__ import annotations

import ctypes

__all__ = ['keep_freed_memory']

# of mallopt in glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory in this process, for networks on a CPU.

    A step of a training frees and asks for the same large arrays as the step before. As it comes,
    glibc gives most of them back to the system, which clears every page of the next ones.

    Returns:
        Whether the C library takes such settings: glibc does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, MOST) and mallopt(M_MMAP_MAX, 0))
