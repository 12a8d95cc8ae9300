"""Memory that was freed, handed back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """glibc keeps what large short-lived arrays occupied, so a process would stay as large as its largest merge. Elsewhere
    the C library hands it back by itself, and this does nothing."""
    if sys.platform == "linux":
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if release is not None:     # musl has none
            release(0)
