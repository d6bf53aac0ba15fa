"""What the machine can do, and how much memory a process uses."""

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from i2l_meshnet.errors import InputError


def describe(device: torch.device) -> str:
    """The processor or GPU, the threads, and PyTorch's version."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        information = Path("/proc/cpuinfo")
        lines = information.read_text().splitlines() if information.is_file() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def matmul_peak(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float], size: int = 2048, rounds: int = 5
) -> float:
    """GFLOP/s of the fastest of several products of two square matrices."""
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(rounds + 1):
        start = clock()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - start)
    return 2 * size**3 / best / 1e9


def memory(field: str) -> float:
    """A field of this process's /proc/self/status, MiB. Raise InputError if it is missing (not on Linux)."""
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise InputError(f"memory is measured on Linux only: {path} has no {field}")
