"""MediaPipe's hand landmark and palm detection networks in plain PyTorch (Zhang et al., arXiv:2006.10214; Apache-2.0).

BatchNorm is folded into the convolutions, as in MediaPipe's exported files (`i2l_lab.tools.convert_mediapipe`).
"""

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.tensors import TensorDataclass

LANDMARKS = 21
LANDMARK_CROP = (224, 224)
PALM_CROP = (192, 192)
PALM_POINTS = 7
"""Wrist, bases of the index, middle, ring and little fingers, and bases of the thumb's metacarpal and first bone."""
PALM_STRIDES = ((8, 2), (16, 6))
"""For each map: distance between anchors in pixels, and number of anchors at each position."""


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding. If the padding is odd, the end gets one pixel more."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        total = max(self.kernel_size[0] - self.stride[0], 0)
        before, after = total // 2, total - total // 2
        return super().forward(F.pad(input, (before, after, before, after)) if total else input)


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; residual if input and output have the same shape."""

    def __init__(self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.expand = SameConv2d(inputs, hidden, 1)
        self.depthwise = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv2d(hidden, outputs, 1)
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        return x + y if self.residual else y


BOTTLENECKS = (
    *((16, 64, 24, 3, 2), (24, 144, 24, 3, 1), (24, 144, 40, 5, 2), (40, 240, 40, 5, 1), (40, 240, 80, 3, 2)),
    *((80, 480, 80, 3, 1), (80, 480, 80, 3, 1), (80, 480, 112, 5, 1), (112, 672, 112, 5, 1), (112, 672, 112, 5, 1)),
    *((112, 672, 192, 5, 2), (192, 1152, 192, 5, 1), (192, 1152, 192, 5, 1), (192, 1152, 192, 5, 1)),
)
"""Input, hidden and output channels, kernel size and stride."""


@dataclasses.dataclass(frozen=True)
class Landmarks(TensorDataclass):
    """The output of `LandmarkNet` for a batch of crops.

    points: x, y in crop pixels, and depth relative to the wrist in the same unit, positive away from the camera.
    presence: probability that the crop shows a hand. right: probability that it is a right hand (in an image that is
    not mirrored). world: the points relative to the hand's centre, metres, in the crop's frame.
    """

    points: Float[Tensor, "*b 21 3"]
    presence: Float[Tensor, "*b"]
    right: Float[Tensor, "*b"]
    world: Float[Tensor, "*b 21 3"]


class LandmarkNet(nn.Module):
    """RGB crops in [0, 1] of size `LANDMARK_CROP`, fingers up → 21 points in MANO's order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 24, 3, 2)
        self.depthwise = SameConv2d(24, 24, 3, groups=24)
        self.project = SameConv2d(24, 16, 1)
        self.blocks = nn.Sequential(*(InvertedBottleneck(*sizes) for sizes in BOTTLENECKS))
        self.last_expand = SameConv2d(192, 1152, 1)
        self.last_depthwise = SameConv2d(1152, 1152, 3, groups=1152)
        self.handedness = nn.Linear(1152, 1)
        self.presence = nn.Linear(1152, 1)
        self.points = nn.Linear(1152, LANDMARKS * 3)
        self.world = nn.Linear(1152, LANDMARKS * 3)

    def forward(self, image: Float[Tensor, "b 3 224 224"]) -> Landmarks:
        x = self.project(F.relu6(self.depthwise(F.relu6(self.stem(image)))))
        x = F.relu6(self.last_depthwise(F.relu6(self.last_expand(self.blocks(x)))))
        feature = x.mean((2, 3))
        return Landmarks(
            self.points(feature).unflatten(-1, (LANDMARKS, 3)),
            self.presence(feature).sigmoid()[..., 0],
            self.handedness(feature).sigmoid()[..., 0],
            self.world(feature).unflatten(-1, (LANDMARKS, 3)),
        )


class ResidualDepthwise(nn.Module):
    """5x5 depthwise and 1x1 convolution, plus the input (pooled and padded with channels), then PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = SameConv2d(inputs, inputs, 5, stride, groups=inputs)
        self.pointwise = SameConv2d(inputs, outputs, 1)
        self.activation = nn.PReLU(outputs)
        self.widening, self.pooled = outputs - inputs, stride == 2

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        shortcut = F.max_pool2d(x, 2) if self.pooled else x
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.widening))
        return self.activation(shortcut + self.pointwise(self.depthwise(x)))


class Lateral(nn.Module):
    """Adds a coarse map, upsampled and with fewer channels, to a fine map; then two residual layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = SameConv2d(inputs, outputs, 1)
        self.activation = nn.PReLU(outputs)
        self.blocks = nn.Sequential(*(ResidualDepthwise(outputs, outputs) for _ in range(2)))

    def forward(self, coarse: Float[Tensor, "b c h w"], fine: Float[Tensor, "b d h2 w2"]) -> Tensor:
        larger = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.blocks(fine + self.activation(self.narrow(larger)))


class PalmNet(nn.Module):
    """Square RGB images in [0, 1] of size `PALM_CROP` → palms at 2,016 anchors."""

    def __init__(self) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            same = (ResidualDepthwise(outputs, outputs) for _ in range(4))
            return nn.Sequential(ResidualDepthwise(inputs, outputs, 2), *same)

        self.stem = SameConv2d(3, 32, 5, 2)
        self.activation = nn.PReLU(32)
        self.first = nn.Sequential(*(ResidualDepthwise(32, 32) for _ in range(4)))
        self.stages = nn.ModuleList(stage(*sizes) for sizes in ((32, 64), (64, 128), (128, 256), (256, 256)))
        self.laterals = nn.ModuleList(Lateral(*sizes) for sizes in ((256, 256), (256, 128)))
        widths = (128, 256)
        self.scores = nn.ModuleList(
            SameConv2d(width, count, 1) for width, (_, count) in zip(widths, PALM_STRIDES, strict=True)
        )
        self.places = nn.ModuleList(
            SameConv2d(width, count * (4 + 2 * PALM_POINTS), 1)
            for width, (_, count) in zip(widths, PALM_STRIDES, strict=True)
        )

    def forward(self, image: Float[Tensor, "b 3 192 192"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 9 2"]]:
        """Score (0 to 1) of each anchor; and centre, size and seven points of its palm, pixels."""
        maps = [self.first(self.activation(self.stem(image)))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        middle = self.laterals[0](maps[4], maps[3])
        features = [self.laterals[1](middle, maps[2]), middle]
        scores, positions = [], []
        for feature, score, position, (stride, count) in zip(
            features, self.scores, self.places, PALM_STRIDES, strict=True
        ):
            scores.append(score(feature).permute(0, 2, 3, 1).flatten(1))
            offsets = position(feature).permute(0, 2, 3, 1).unflatten(-1, (count, 2 + PALM_POINTS, 2))
            rows, columns = feature.shape[2:]
            anchor = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), -1)
            anchor = ((anchor + 0.5) * stride).to(offsets)[:, :, None, None]
            # The anchor is added to all positions, but not to the size.
            is_position = offsets.new_tensor([1.0, 0.0] + [1.0] * PALM_POINTS)[:, None]
            positions.append((offsets + anchor * is_position).flatten(1, 3))
        return torch.cat(scores, 1).clamp(-100, 100).sigmoid(), torch.cat(positions, 1)


ROI_POINTS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
"""Points that define a crop. Points that move much when fingers bend are left out."""
ROI_SCALE, ROI_SHIFT = 2.0, 0.1
"""Side of the crop relative to the box around these points; shift towards the fingers relative to its height."""


def crop_around(points: Float[Tensor, "*b 21 2"]) -> Crop:
    """The input crop of `LandmarkNet` for a hand, fingers up. points: image pixels."""
    box, rotation = region_around(points)
    return Crop.around(box, LANDMARK_CROP, margin=1.0, rotation=rotation)


def region_around(points: Float[Tensor, "*b 21 2"]) -> tuple[Float[Tensor, "*b 4"], Float[Tensor, "*b"]]:
    """MediaPipe's tracking square (x, y, width, height; pixels) of a hand, and its rotation about its centre.

    The rotation (radians, clockwise) puts the wrist below the bases of the fingers.
    """
    towards = (points[..., 5, :] + points[..., 13, :]) / 4 + points[..., 9, :] / 2 - points[..., 0, :]
    rotation = torch.atan2(towards[..., 0], -towards[..., 1])
    cos, sin = rotation.cos(), rotation.sin()
    rotate_back = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    upright = points[..., ROI_POINTS, :] @ rotate_back.mT
    low, high = upright.amin(-2), upright.amax(-2)
    shift = torch.stack([torch.zeros_like(cos), (high - low)[..., 1] * ROI_SHIFT], -1)
    centre = (((low + high) / 2 - shift)[..., None, :] @ rotate_back)[..., 0, :]
    side = (high - low).amax(-1, keepdim=True).clamp_min(1.0) * ROI_SCALE
    return torch.cat([centre - side / 2, side, side], -1), rotation
