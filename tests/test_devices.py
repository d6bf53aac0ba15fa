"""The devices that options name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from i2l_meshnet import cli
from i2l_meshnet.devices import choose_device, device_numbers, named_device
from i2l_meshnet.errors import InputError
from i2l_meshnet.prediction.options import InputOptions, NetworkOptions, PredictOptions, TableOptions
from i2l_meshnet.serving.server import ServeOptions


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("name", "device"),
    [("auto", "cuda"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_device_is_chosen_by_its_name(name: str, device: str) -> None:
    assert choose_device(name) == torch.device(device)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["gpu", "cpu:0", "auto:1", "cuda:", "cuda:x", "cuda:-1", "cuda:2"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_device(name)
    assert caught.value.argument == ("gpu" if ":" in name else "device")


@pytest.mark.usefixtures("no_gpu")
def test_without_cuda() -> None:
    assert choose_device("auto") == torch.device("cpu")
    for name, argument in (("cuda", "device"), ("cuda:0", "gpu")):
        with pytest.raises(InputError) as caught:
            choose_device(name)
        assert caught.value.argument == argument


@pytest.mark.parametrize(("text", "numbers"), [("", None), ("0", [0]), ("0,2", [0, 2]), ("1, 4-5", [1, 4, 5])])
def test_device_numbers(text: str, numbers: list[int] | None) -> None:
    assert device_numbers(text) == numbers


@pytest.mark.parametrize("text", ["a", "0-", "0,0", "3-2"])
def test_wrong_device_numbers(text: str) -> None:
    with pytest.raises(InputError) as caught:
        device_numbers(text)
    assert caught.value.argument == "gpu"


@pytest.mark.parametrize(
    "make",
    [
        lambda: named_device("cpu", 0),
        lambda: NetworkOptions(device="cpu", gpu=0),
        lambda: ServeOptions(device="cpu", gpu=0),
        lambda: PredictOptions(InputOptions(), network=NetworkOptions(gpu=0), table=TableOptions("t", "ray")),
    ],
)
def test_options_that_contradict_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.argument == "gpu"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    "command",
    [
        ["predict", "photo.jpg", "--no-detect"],
        ["evaluate", "--data", "PW3D"],
        ["serve", "--port", "0"],
        ["export", "--out", "default.onnx"],
    ],
)
def test_every_command_needs_cuda_for_a_gpu(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main([*command, "--gpu", "1"]) == 1
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1].startswith("i2l-meshnet: --gpu: no CUDA device is available")
