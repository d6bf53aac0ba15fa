"""ResNets without classifier, with torchvision's key names (stride on the 3x3 convolution, "v1.5").

He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
RESNET_NAMES: tuple[ResNetName, ...] = get_args(ResNetName)
STEM_KEYS = ("conv1.", "bn1.")
"""Prefixes of the stem's keys in a ResNet's state dict."""

_WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(in_channels, width * self.expansion, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(x))
        return F.relu(x + shortcut, inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


BLOCKS: dict[ResNetName, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
"""Block type and number of blocks of the four stages."""


class _Stages(nn.Module):
    """`layer1` to `layer4`, for a map of 64 channels."""

    early_channels = 64

    def __init__(self, name: ResNetName, narrow: int = 1) -> None:
        """narrow: divisor of the channels of all stages."""
        super().__init__()
        block, depths = BLOCKS[name]
        channels = self.early_channels
        stages = []
        for stage, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(block(channels, width // narrow, 2 if i == 0 and stage else 1))
                channels = width // narrow * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.deep_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def deepen(self, early: Float[Tensor, "b 64 h w"]) -> Float[Tensor, "b c h8 w8"]:
        """The deep map after the last stage. Its size is an eighth of the early map."""
        return self.layer4(self.layer3(self.layer2(self.layer1(early))))


class ResNetStages(_Stages):
    """A ResNet without stem and classifier. It starts from a 64-channel map."""

    def forward(self, early: Float[Tensor, "b 64 h w"]) -> Float[Tensor, "b c h8 w8"]:
        """The deep map. Its size is an eighth of the early map."""
        return self.deepen(early)


class ResNet(_Stages):
    """A ResNet without classifier."""

    def __init__(self, name: ResNetName, narrow: int = 1) -> None:
        super().__init__(name, narrow)
        self.conv1 = nn.Conv2d(3, self.early_channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.early_channels)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 64 h4 w4"], Float[Tensor, "b c h32 w32"]]:
        """The early map after the stem (1/4 of the image size) and the deep map (1/32)."""
        early = F.max_pool2d(F.relu(self.bn1(self.conv1(image)), inplace=True), 3, 2, 1)
        return early, self.deepen(early)
