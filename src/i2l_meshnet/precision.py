"""The precisions that a device supports.

float32 is always supported. Half precision is supported only if the hardware computes in it: emulated half precision is
many times slower than float32, and some of PyTorch's operators raise an error.
"""

import os
from typing import Literal

import torch

from i2l_meshnet.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_CPU_FEATURES: dict[Precision, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16"),
}
"""Instruction sets, by their names in `torch.cpu.get_capabilities`. One of them is enough."""
_ONEDNN_LIMITS = "SSE41 AVX AVX2 AVX2_VNNI AVX2_VNNI_2 AVX512_CORE AVX512_CORE_VNNI".split()
"""Values of ONEDNN_MAX_CPU_ISA with which oneDNN supports neither bf16 nor fp16."""


def supported_precisions(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """The precisions that `device` supports: "fp32", and "tf32", "bf16" and "fp16" if available.

    On a CPU, the environment variables ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY can limit the features of the
    hardware. PyTorch before 2.11 does not report these features; then only "fp32" is supported.
    """
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            major, _ = torch.cuda.get_device_capability()
        return ("fp32", "tf32", "bf16", "fp16") if major >= 8 else ("fp32", "fp16")
    return ("fp32", *(precision for precision in _CPU_FEATURES if _cpu_supports(precision)))


def require_precision(precision: str, device: torch.device | str = "cpu") -> None:
    """Raise InputError unless `device` supports `precision`."""
    supported = supported_precisions(device)
    if precision not in supported:
        processor = "this processor" if torch.device(device).type == "cpu" else "this GPU"
        raise InputError(
            f"{processor} does not support {precision}: choose {' or '.join(supported)}", argument="precision"
        )


def _cpu_supports(precision: Precision) -> bool:
    report = getattr(torch.cpu, "get_capabilities", None)
    hardware = {} if report is None else report()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    below = _ONEDNN_LIMITS if precision == "bf16" else [*_ONEDNN_LIMITS, "AVX512_CORE_BF16"]
    return (
        any(hardware.get(feature, False) for feature in _CPU_FEATURES[precision])
        and limit not in below
        and torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    )
