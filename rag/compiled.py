"""Functions compiled by numba: at their first call, then from a cache on disk.

Only modules of compiled functions import this one, and they are imported inside the functions that call them, so that a command
that needs none of it does not pay for numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Machine code that runs without the interpreter's lock. Where no folder for the cache can be written (a read-only
    installation without a home), each process compiles anew.
    """
    try:
        return cast(Callable[P, R], numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:    # numba found no place for its cache
        return cast(Callable[P, R], numba.njit(nogil=True)(function))
