"""Compile functions with numba, and cache the machine code if that is possible and safe."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

from i2l_meshnet.folders import only_ours


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called. The compiled function releases the GIL.

    Later processes load it from numba's cache. There is no cache without a writable folder, or if other users
    can write to the cache, because it contains code.
    """
    source = Path(function.__code__.co_filename).parent
    try:
        cached = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba's error if it cannot write a cache anywhere
        _warn("numba cannot write a cache")
    else:
        # NUMBA_DISABLE_JIT leaves the plain function.
        stats = getattr(cached, "stats", None)
        folder = stats and stats.cache_path
        # If others can change the source too, refusing the cache would not protect anything.
        if folder is None or only_ours(Path(folder)) or not only_ours(source):
            return cached
        _warn(f"other users can write to numba's cache {folder}")
    return njit(nogil=True)(function)


@functools.cache
def _warn(reason: str) -> None:
    print(
        f"warning: {reason}, so functions are compiled again in every run; set NUMBA_CACHE_DIR to a folder of your own",
        file=sys.stderr,
    )
