"""Which precisions a device computes in.

Everything that offers, measures, trains in or tests a precision asks this module. float32 always works. Half precision
is supported only where the hardware computes in it: emulated, it is many times slower than float32, and some of
PyTorch's operators raise an error.
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
"""Instruction sets of which one is enough, as `torch.cpu.get_capabilities` names them."""
_ONEDNN_LIMITS = "SSE41 AVX AVX2 AVX2_VNNI AVX2_VNNI_2 AVX512_CORE AVX512_CORE_VNNI".split()
"""Values of ONEDNN_MAX_CPU_ISA below AVX512_CORE_BF16: under these, oneDNN has neither half precision."""


def supported_precisions(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """The precisions that `device` computes in: "fp32", then "tf32", "bf16" and "fp16" where it has them.

    On the CPU the hardware counts, or less where ONEDNN_MAX_CPU_ISA or ATEN_CPU_CAPABILITY limit it.
    PyTorch before 2.11 does not report the hardware's features; there the CPU counts as float32 only.
    """
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            major, _ = torch.cuda.get_device_capability()
        return ("fp32", "tf32", "bf16", "fp16") if major >= 8 else ("fp32", "fp16")
    return ("fp32", *(precision for precision in _CPU_FEATURES if _cpu_computes_in(precision)))


def require_precision(precision: str, device: torch.device | str = "cpu") -> None:
    """Raise InputError unless `device` computes in `precision`."""
    supported = supported_precisions(device)
    if precision not in supported:
        processor = "this processor" if torch.device(device).type == "cpu" else "this GPU"
        raise InputError(f"{processor} does not compute in {precision}: choose --precision {' or '.join(supported)}")


def _cpu_computes_in(precision: Precision) -> bool:
    report = getattr(torch.cpu, "get_capabilities", None)
    hardware = {} if report is None else report()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    below = _ONEDNN_LIMITS if precision == "bf16" else [*_ONEDNN_LIMITS, "AVX512_CORE_BF16"]
    return (
        any(hardware.get(feature, False) for feature in _CPU_FEATURES[precision])
        and limit not in below
        and torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    )
