"""ImageNet weights: torchvision's files, and the conversion of the Keras ResNet-50."""

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from i2l_meshnet import assets
from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import FileError
from i2l_meshnet.models import assembly, imagenet
from i2l_meshnet.models.backbone import ResNet

Layers = dict[str, np.ndarray]


def layer_names() -> Iterator[tuple[str, str, str, str, tuple[int, int, int]]]:
    """Our convolution and BatchNorm, those of Keras, and (kernel size, input channels, output channels)."""
    yield "conv1", "bn1", "conv1", "bn_conv1", (7, 3, 64)
    channels = 64
    for stage, (depth, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 1):
        for block in range(depth):
            name, ours = f"{stage + 1}{'abcdef'[block]}_branch", f"layer{stage}.{block}"
            sizes = (1, channels, width), (3, width, width), (1, width, 4 * width)
            for i, size in enumerate(sizes, 1):
                keras = f"{name}2{'abc'[i - 1]}"
                yield f"{ours}.conv{i}", f"{ours}.bn{i}", f"res{keras}", f"bn{keras}", size
            if block == 0:
                size = (1, channels, 4 * width)
                yield f"{ours}.downsample.0", f"{ours}.downsample.1", f"res{name}1", f"bn{name}1", size
            channels = 4 * width


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Layers]:
    """A random Keras ResNet-50 in the format and layout of the asset: the folder and the arrays."""
    random = np.random.default_rng(0)
    layers: Layers = {}
    for _, _, conv, norm, (kernel, inputs, outputs) in layer_names():
        spread = (kernel * kernel * inputs) ** -0.5
        layers[f"{conv}/kernel"] = random.normal(0, spread, (kernel, kernel, inputs, outputs)).astype("<f4")
        layers[f"{conv}/bias"] = random.normal(0, 0.1, outputs).astype("<f4")
        layers[f"{norm}/gamma"] = random.normal(1, 0.1, outputs).astype("<f4")
        layers[f"{norm}/beta"] = random.normal(0, 0.1, outputs).astype("<f4")
        layers[f"{norm}/moving_mean"] = random.normal(0, 0.1, outputs).astype("<f4")
        layers[f"{norm}/moving_variance"] = random.uniform(0.001, 1, outputs).astype("<f4")
    folder = tmp_path_factory.mktemp("keras") / "package" / "ResNet50"
    folder.mkdir(parents=True)
    data = b"".join(value.tobytes() for value in layers.values())
    (folder / "shard1").write_bytes(data[:1_000_001])
    (folder / "shard2").write_bytes(data[1_000_001:])
    entries = [{"name": name, "shape": list(value.shape), "dtype": "float32"} for name, value in layers.items()]
    manifest = {"weightsManifest": [{"paths": ["shard1", "shard2"], "weights": entries}]}
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder.parent.parent, layers


def test_each_converted_layer_equals_the_keras_layer(keras: tuple[Path, Layers]) -> None:
    """Keras: BGR minus the mean as input, convolutions with biases, BatchNorm with eps 1e-3."""
    folder, layers = keras
    net = ResNet("resnet50")
    net.load_state_dict(imagenet.convert_keras_resnet50(folder))
    net.double().eval()
    generator = torch.Generator().manual_seed(0)

    def array(name: str) -> Tensor:
        return torch.from_numpy(layers[name]).double()

    for conv, norm, keras_conv, keras_norm, (kernel, inputs, _) in layer_names():
        x = torch.rand(2, inputs, kernel, kernel, generator=generator, dtype=torch.float64)
        found = net.get_submodule(norm)(F.conv2d(x, net.get_parameter(f"{conv}.weight")))
        if conv == "conv1":
            x = x.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
        x = F.conv2d(x, array(f"{keras_conv}/kernel").permute(3, 2, 0, 1), array(f"{keras_conv}/bias"))
        parts = [array(f"{keras_norm}/{part}") for part in ("moving_mean", "moving_variance", "gamma", "beta")]
        expected = F.batch_norm(x, *parts, eps=1e-3)
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0, msg=conv)


@pytest.mark.slow
def test_the_real_keras_model_converts() -> None:
    """Downloads 95 MB."""
    weights = imagenet.convert_keras_resnet50(assets.ensure("resnet50"))
    assert weights["conv1.weight"].shape == (64, 3, 7, 7)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert all((value > 0).all() for key, value in weights.items() if key.endswith("running_var"))


def test_a_folder_without_the_model_raises_an_error(tmp_path: Path) -> None:
    model = tmp_path / "model.json"
    (tmp_path / "shard").write_bytes(b"\0" * 20)
    for content in (
        None,
        {},
        {"weightsManifest": [{"paths": ["shard"], "weights": [{"name": "conv1/kernel", "shape": [5]}]}]},
        {"weightsManifest": [{"paths": ["shard"], "weights": [{"name": "conv1/kernel", "shape": [4]}]}]},
    ):
        if content is not None:
            model.write_text(json.dumps(content))
        with pytest.raises(FileError) as caught:
            imagenet.convert_keras_resnet50(tmp_path)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_files_load_into_both_backbones(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    source = {
        key: value + 0.5 if value.is_floating_point() else value
        for key, value in ResNet("resnet18").state_dict().items()
    }
    # torchvision's files have a classifier, and older files have no batch counters.
    file = {key: value for key, value in source.items() if "num_batches" not in key}
    file["fc.weight"] = torch.zeros(1000, 512)
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(file, path)
    else:
        save_file(file, path)
    body = load_body("toy")
    network = assembly.build(assembly.published_config(body, "resnet18"), body)
    imagenet.load_backbones(network, imagenet.load_weights("resnet18", path), path)
    state = network.state_dict()
    for key, value in source.items():
        assert torch.equal(state[f"pose_net.backbone.{key}"], value)
        if key.startswith("layer"):
            assert torch.equal(state[f"mesh_branch.backbone.{key}"], value)
    with pytest.raises(FileError):
        imagenet.load_weights("resnet34", path)


def test_files_without_weights_raise_an_error(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    for write in (lambda: None, lambda: path.write_text("not a network"), lambda: torch.save([1, 2], path)):
        write()
        with pytest.raises(FileError, match=r"resnet18\.pth"):
            imagenet.load_weights("resnet18", path)


def test_a_failed_download_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://download.pytorch.org/models/resnet101-63fe2227.pth"

    def refuse(url: str, **options: Any) -> None:
        assert (url, options["weights_only"], options["check_hash"]) == (address, True, True)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(FileError, match=address):
        imagenet.download_weights("resnet101")
