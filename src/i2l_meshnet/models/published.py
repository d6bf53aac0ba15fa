"""Pose net and mesh branch of the published network, and the tables of backbones and heads they can have."""

import dataclasses
import functools
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.errors import InputError
from i2l_meshnet.models.backbone import RESNET_NAMES, ResNet, ResNetStages
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.output import PoseOutput


class PublishedPoseNet(nn.Module):
    """A backbone and a head for the joints. Its feature is the early map."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> PoseOutput:
        """image: RGB in [0, 1], without further normalisation."""
        early, deep = self.backbone(image)
        return PoseOutput(self.head(deep), early)


class PublishedMeshBranch(nn.Module):
    """The stages of a backbone and a head for the vertices."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, feature: Float[Tensor, "b 64 h w"]) -> Float[Tensor, "b v 3"]:
        """Vertices in lixels from the map of pose-to-feature."""
        return self.head(self.backbone(feature))


@dataclasses.dataclass(frozen=True)
class Backbone:
    """How to make the two networks of a backbone, both with the attribute `deep_channels`.

    image: maps images (b, 3, h, w) to the early map (b, 64, h/4, w/4) and the deep map (b, deep_channels, h/32, w/32).
    stages: maps an early map to a deep map.
    """

    image: Callable[[], Any]
    stages: Callable[[], Any]


NARROW = 4
"""Divisor of the channels of narrow networks, which train on a CPU in minutes."""
BACKBONES: dict[str, Backbone] = {
    name: Backbone(functools.partial(ResNet, name), functools.partial(ResNetStages, name)) for name in RESNET_NAMES
} | {
    "resnet18-narrow": Backbone(
        functools.partial(ResNet, "resnet18", NARROW), functools.partial(ResNetStages, "resnet18", NARROW)
    )
}
"""Name → backbone. Add your own, and name it in `NetworkConfig.backbone` or with `train --backbone`."""
HEADS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "lixel": LixelHead,
    "lixel-narrow": functools.partial(LixelHead, channels=256 // NARROW),
}
"""Name → head for (channels of the deep map, points, depth bins). A head maps a deep map to lixels (b, points, 3)."""


def run_code(path: Path | None) -> None:
    """Run a Python file that adds to `BACKBONES` or `HEADS`. Nothing for None.

    Raise InputError if the file is missing or fails.
    """
    if path is None:
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file", argument="code")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:
        line, kind = traceback.extract_tb(error.__traceback__)[-1].lineno, type(error).__name__
        raise InputError(f"{path} failed in line {line} ({kind}): correct it", argument="code") from error
