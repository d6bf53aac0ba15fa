"""The supported precisions of a processor: its features, minus the limits set by the environment."""

import pytest
import torch

from i2l_meshnet.errors import InputError
from i2l_meshnet.models import exported
from i2l_meshnet.precision import require_precision, supported_precisions


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The features that PyTorch reports of a processor with every precision; no limits from the environment."""
    features = {"avx512_bf16": True, "amx_fp16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    return features


def test_the_precisions_of_the_hardware(hardware: dict[str, bool]) -> None:
    assert supported_precisions("cpu") == ("fp32", "bf16", "fp16")
    hardware["amx_fp16"] = False
    assert supported_precisions("cpu") == ("fp32", "bf16")
    hardware["avx512_bf16"] = False
    assert supported_precisions("cpu") == ("fp32",)


def test_pytorch_without_a_report_of_the_hardware(hardware: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert supported_precisions() == ("fp32",)


def test_openvino_supports_no_more_than_the_processor(hardware: dict[str, bool]) -> None:
    hardware.clear()
    assert exported.openvino_precisions() == ("fp32",)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("avx2", ("fp32",)),
        ("AVX512_CORE", ("fp32",)),
        ("AVX512_CORE_BF16", ("fp32", "bf16")),
        ("AVX512_CORE_AMX", ("fp32", "bf16", "fp16")),
    ],
)
@pytest.mark.usefixtures("hardware")
def test_onednn_can_be_limited(monkeypatch: pytest.MonkeyPatch, limit: str, expected: tuple[str, ...]) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert supported_precisions() == expected


@pytest.mark.usefixtures("hardware")
def test_pytorch_can_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert supported_precisions() == ("fp32",)


@pytest.mark.usefixtures("hardware")
def test_an_unsupported_precision_raises_an_error() -> None:
    require_precision("bf16")
    with pytest.raises(InputError, match="tf32"):
        require_precision("tf32")
