"""Freed memory is kept for the next tensor instead of going back to the system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_KEPT_BYTES = 2**30
_LARGEST_FROM_HEAP = 2**25  # more than that glibc refuses


def keep_freed_memory() -> bool:
    """Ask glibc to reuse what tensors free; False where there is no glibc (nothing changes then).

    Otherwise each large temporary of a training step is mapped and zeroed by the kernel anew, page by page: 8 % of a
    step of the dynamics (benchmarks/LOG.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP))
