"""ImageNet weights: torchvision's files, and the Keras ResNet-50 whose conversion must change nothing."""

import json
import urllib.error
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
from i2l_meshnet.models.backbone import Bottleneck, ResNet

DEPTHS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Keras ResNet-50 in the asset's format and layout."""
    random = np.random.default_rng(0)
    layers: dict[str, np.ndarray] = {}

    def layer(conv: str, norm: str, kernel: int, inputs: int, outputs: int) -> None:
        fan_in = kernel * kernel * inputs
        layers[f"{conv}/kernel"] = random.normal(0, (1 / fan_in) ** 0.5, (kernel, kernel, inputs, outputs))
        layers[f"{conv}/bias"] = random.normal(0, 0.1, outputs)
        layers[f"{norm}/gamma"] = random.normal(1, 0.1, outputs)
        layers[f"{norm}/beta"] = random.normal(0, 0.1, outputs)
        layers[f"{norm}/moving_mean"] = random.normal(0, 0.1, outputs)
        layers[f"{norm}/moving_variance"] = random.uniform(0.001, 1, outputs)

    layer("conv1", "bn_conv1", 7, 3, 64)
    channels = 64
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 2):
        for block in range(depth):
            name = f"{stage}{'abcdef'[block]}_branch"
            layer(f"res{name}2a", f"bn{name}2a", 1, channels, width)
            layer(f"res{name}2b", f"bn{name}2b", 3, width, width)
            layer(f"res{name}2c", f"bn{name}2c", 1, width, 4 * width)
            if block == 0:
                layer(f"res{name}1", f"bn{name}1", 1, channels, 4 * width)
            channels = 4 * width
    folder = tmp_path_factory.mktemp("keras") / "package" / "ResNet50"
    folder.mkdir(parents=True)
    data = b"".join(value.astype("<f4").tobytes() for value in layers.values())
    shards = ["group1-shard1of2", "group1-shard2of2"]
    for shard, part in zip(shards, (data[:1_000_001], data[1_000_001:]), strict=True):
        (folder / shard).write_bytes(part)
    entries = [{"name": name, "shape": list(value.shape), "dtype": "float32"} for name, value in layers.items()]
    (folder / "model.json").write_text(json.dumps({"weightsManifest": [{"paths": shards, "weights": entries}]}))
    return folder.parent.parent


def keras_forward(layers: dict[str, np.ndarray], rgb: Tensor) -> Tensor:
    """Keras' own ResNet-50, float64: BGR less the mean, stride on the first 1x1, BatchNorm eps 1e-3."""

    def convolve(x: Tensor, conv: str, norm: str, stride: int = 1, pad: bool = True) -> Tensor:
        kernel = torch.tensor(layers[f"{conv}/kernel"], dtype=torch.float64).permute(3, 2, 0, 1)
        bias, gamma, beta, mean, variance = (
            torch.tensor(layers[name], dtype=torch.float64)
            for name in [f"{conv}/bias"] + [f"{norm}/{part}" for part in _NORM]
        )
        x = F.conv2d(x, kernel, bias, stride, padding=kernel.shape[2] // 2 if pad else 0)
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    mean = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64)[:, None, None]
    # Padded with black, as the conversion does, not with the mean.
    x = F.pad(rgb, (3, 3, 3, 3)).flip(1) * 255 - mean
    x = convolve(x, "conv1", "bn_conv1", 2, pad=False).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, depth in enumerate(DEPTHS, 2):
        for block in range(depth):
            name, stride = f"{stage}{'abcdef'[block]}_branch", 2 if block == 0 and stage > 2 else 1
            shortcut = convolve(x, f"res{name}1", f"bn{name}1", stride) if block == 0 else x
            x = convolve(x, f"res{name}2a", f"bn{name}2a", stride).relu()
            x = convolve(x, f"res{name}2b", f"bn{name}2b").relu()
            x = (convolve(x, f"res{name}2c", f"bn{name}2c") + shortcut).relu()
    return x


def read(folder: Path) -> dict[str, np.ndarray]:
    """The random model's arrays."""
    model = folder / "package" / "ResNet50"
    group = json.loads((model / "model.json").read_text())["weightsManifest"][0]
    data = np.frombuffer(b"".join((model / shard).read_bytes() for shard in group["paths"]), "<f4")
    ends = np.cumsum([int(np.prod(entry["shape"])) for entry in group["weights"]])
    parts = np.split(data, ends[:-1])
    return {entry["name"]: part.reshape(entry["shape"]) for entry, part in zip(group["weights"], parts, strict=True)}


def move_strides(net: ResNet) -> None:
    """Puts the strides where Keras has them, on the first convolution of a block."""
    for block in net.modules():
        if isinstance(block, Bottleneck) and block.conv2.stride == (2, 2):
            block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


def test_keras_conversion_is_exact_but_for_strides_and_border(keras: Path) -> None:
    net = ResNet("resnet50")
    net.load_state_dict(imagenet.convert_keras_resnet50(keras))
    move_strides(net)
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, deep = net.double().eval()(image)
        expected = keras_forward(read(keras), image)
    torch.testing.assert_close(deep, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.slow
def test_the_real_keras_model_converts() -> None:
    """Fetches 95 MB; the conversion itself is tested on a small model of the same layout."""
    weights = imagenet.convert_keras_resnet50(assets.ensure("resnet50"))
    # Its first filters see colours: they are not those of a random initialisation.
    assert weights["conv1.weight"].shape == (64, 3, 7, 7)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert all((value > 0).all() for key, value in weights.items() if key.endswith("running_var"))


def test_a_folder_without_the_model_is_refused(keras: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no model\.json"):
        imagenet.convert_keras_resnet50(tmp_path)
    model = tmp_path / "model.json"
    model.write_text("{}")
    with pytest.raises(FileError, match=r"model\.json is not"):
        imagenet.convert_keras_resnet50(tmp_path)
    original = json.loads((keras / "package/ResNet50/model.json").read_text())
    group: dict[str, Any] = original["weightsManifest"][0]
    (tmp_path / "shard").write_bytes(b"\0" * 20)
    group |= {"paths": ["shard"], "weights": [{"name": "conv1/kernel", "shape": [5]}]}
    model.write_text(json.dumps(original))
    with pytest.raises(FileError, match="lacks the layer weight"):
        imagenet.convert_keras_resnet50(tmp_path)
    group["weights"][0]["shape"] = [4]
    model.write_text(json.dumps(original))
    with pytest.raises(FileError, match=r"model\.json is not"):
        imagenet.convert_keras_resnet50(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_files_load_into_both_backbones(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    source = {
        key: value + 0.5 if value.is_floating_point() else value
        for key, value in ResNet("resnet18").state_dict().items()
    }
    # torchvision's files have a classifier, and the older ones no batch counters.
    file = {key: value for key, value in source.items() if "num_batches" not in key} | {
        "fc.weight": torch.zeros(1000, 512)
    }
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
    with pytest.raises(FileError, match="not a checkpoint of this network"):
        imagenet.load_weights("resnet34", path)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    for write in (lambda: None, lambda: path.write_text("not a network"), lambda: torch.save([1, 2], path)):
        write()
        with pytest.raises(FileError, match=r"resnet18\.pth"):
            imagenet.load_weights("resnet18", path)


def test_without_network_the_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(url: str, **options: Any) -> None:
        asked.append((url, options["weights_only"], options["check_hash"]))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(FileError, match=r"cannot fetch https://.*/resnet101-63fe2227\.pth") as caught:
        imagenet.download_weights("resnet101")
    assert "\n" not in str(caught.value)
    assert asked == [("https://download.pytorch.org/models/resnet101-63fe2227.pth", True, True)]
