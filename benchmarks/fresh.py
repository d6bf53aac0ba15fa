"""Measurements that need a fresh process: `python benchmarks/fresh.py MEASUREMENT ...` prints a number.

memory published|PRECISION BATCH    MiB that a forward pass of the published network adds at its peak
mesh                                seconds from the first import to the mesh of a synthetic image
"""

import ctypes
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from i2l_meshnet.errors import InputError

_START = time.perf_counter()


def measure(*arguments: str) -> float:
    """Run this module in a fresh process and return the number it prints. Raise InputError if it fails."""
    return float(output(__file__, *arguments).splitlines()[-1])


def output(*arguments: str) -> str:
    """The output of a fresh Python process. Raise InputError with the last line of its errors if it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"a process of the benchmark failed: {errors[-1]}")
    return done.stdout


def _pass_memory(variant: str, batch: str) -> float:
    import torch

    from i2l_meshnet.models import assembly
    from i2l_meshnet.models.inference import for_inference
    from i2l_meshnet.models.reference import plain_copy
    from i2l_meshnet.precision import Precision
    from machine import memory
    from subjects import pictures, random_body

    body = random_body()
    network = assembly.build(assembly.published_config(body), body).eval()
    network = plain_copy(network) if variant == "published" else for_inference(network, cast(Precision, variant))
    image = pictures(int(batch))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # Return freed memory to the system: the pass would reuse it unnoticed.
    Path("/proc/self/clear_refs").write_text("5")  # Reset the peak.
    before = memory("VmRSS")
    with torch.inference_mode():
        network(image)
    return memory("VmHWM") - before


def _first_mesh() -> float:
    import numpy as np

    from i2l_meshnet import MeshPredictor

    picture = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    MeshPredictor.load(detect=False)(picture)
    return time.perf_counter() - _START


MEASUREMENTS: dict[str, Callable[..., float]] = {"memory": _pass_memory, "mesh": _first_mesh}

if __name__ == "__main__":
    print(MEASUREMENTS[sys.argv[1]](*sys.argv[2:]))
