"""What the machine itself can do, and what a process uses of it."""

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from i2l_meshnet.errors import InputError


def describe(device: torch.device) -> str:
    """The processor or GPU and the versions that matter to speed."""
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
    """GFLOP/s of the fastest of some products of two square matrices."""
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(rounds + 1):
        start = clock()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - start)
    return 2 * size**3 / best / 1e9


def memory(field: str, file: str = "/proc/self/smaps_rollup") -> float:
    """A field of this process's memory use as the Linux kernel counts it, MiB. Raises InputError elsewhere."""
    path = Path(file)
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise InputError(f"memory is measured on Linux only: there is no {field} in {file}")
