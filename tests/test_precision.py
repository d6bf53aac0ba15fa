"""Which precisions the processor computes in: the hardware's features, or less where the environment limits them."""

import pytest
import torch

from i2l_meshnet.errors import InputError
from i2l_meshnet.models import exported
from i2l_meshnet.precision import require_precision, supported_precisions

EVERYTHING = {"avx512_bf16": True, "amx_fp16": True}


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What PyTorch reports of a processor with every precision; without limits from the environment."""
    features = dict(EVERYTHING)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    return features


def test_every_precision_that_the_hardware_has(hardware: dict[str, bool]) -> None:
    assert supported_precisions("cpu") == ("fp32", "bf16", "fp16")
    hardware["amx_fp16"] = False
    assert supported_precisions("cpu") == ("fp32", "bf16")
    hardware["avx512_bf16"] = False
    assert supported_precisions("cpu") == ("fp32",)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("SSE41", ("fp32",)),
        ("avx2", ("fp32",)),
        ("AVX512_CORE", ("fp32",)),
        ("AVX512_CORE_BF16", ("fp32", "bf16")),
        ("AVX512_CORE_FP16", ("fp32", "bf16", "fp16")),
        ("AVX512_CORE_AMX", ("fp32", "bf16", "fp16")),
        ("ALL", ("fp32", "bf16", "fp16")),
    ],
)
@pytest.mark.usefixtures("hardware")
def test_onednn_may_be_limited(monkeypatch: pytest.MonkeyPatch, limit: str, expected: tuple[str, ...]) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert supported_precisions() == expected


@pytest.mark.parametrize("capability", ["DEFAULT", "AVX2"])
@pytest.mark.usefixtures("hardware")
def test_pytorch_may_be_limited(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert supported_precisions() == ("fp32",)


def test_pytorch_that_does_not_report_the_hardware(hardware: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert supported_precisions() == ("fp32",)


def test_an_unsupported_precision_is_refused(hardware: dict[str, bool]) -> None:
    require_precision("bf16")
    hardware["avx512_bf16"] = False
    with pytest.raises(InputError, match="bf16"):
        require_precision("bf16")
    with pytest.raises(InputError, match="tf32"):
        require_precision("tf32")


def test_openvino_is_offered_no_more_than_the_processor_has(hardware: dict[str, bool]) -> None:
    hardware.clear()
    assert exported.openvino_precisions() == ("fp32",)
