"""Parts of the default network, which lifts RTMPose's keypoints to lixel joints, a lixel mesh and body parameters.

RTMPose-s, trained on real photos, is the image network. The other parts only see its 26 keypoints with their
confidences, so they are trained on sampled poses of the body without images (docs/default-model.md).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.skinning import local_rotations
from i2l_meshnet.geometry.lixel import LixelGrid, soft_argmax
from i2l_meshnet.geometry.rotations import sixd_to_matrix
from i2l_meshnet.models.config import LiftingSizes, NetworkConfig
from i2l_meshnet.models.lixel_head import linear_soft_argmax
from i2l_meshnet.models.output import PoseOutput
from i2l_meshnet.models.rtmpose import CROP_SIZE, KEYPOINTS

GRID = LixelGrid(crop_size=CROP_SIZE, depth_extent=2.4, margin=0.5, depth_axis="crop")
"""It extends half a crop beyond each side, so that it contains bodies that are cut off."""
SIZES = LiftingSizes(
    width=768,
    blocks=3,
    joint_hidden=128,
    joint_channels=8,
    mesh_rank=96,
    mesh_hidden=256,
    mesh_channels=16,
    fit=True,
)
SIGMA = 2.5
"""Standard deviation of the Gaussian heatmaps in bins, as in the published network."""
FEW_POINTS = 64
"""Heads with up to this number of points build their heatmaps in one product."""
MIN_CONFIDENCE = 0.12
"""Keypoints with a confidence up to this are treated as unseen: their positions are ignored."""


class ResidualBlock(nn.Module):
    """Pre-norm residual MLP block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width)
        self.reduce = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return x + self.reduce(F.silu(self.expand(self.norm(x))))


class Trunk(nn.Module):
    """Residual MLP from input values to a feature vector."""

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)

    def embedded(self, values: Float[Tensor, "b k d"]) -> Float[Tensor, "b c"]:
        """The feature vector of the input values."""
        return self.norm(self.blocks(self.embed(values.flatten(1))))


class KeypointTrunk(Trunk):
    """26 keypoints (crop pixels, confidence) → a feature vector."""

    def __init__(self, width: int, blocks: int, crop_size: tuple[int, int]) -> None:
        super().__init__(KEYPOINTS * 4, width, blocks)
        self.half_size = (crop_size[1] / 2, crop_size[0] / 2)

    def forward(self, keypoints: Float[Tensor, "b 26 3"]) -> Float[Tensor, "b c"]:
        confidence = keypoints[..., 2:].clamp(0, 1)
        seen = (confidence > MIN_CONFIDENCE).to(confidence.dtype)
        half = keypoints.new_tensor(self.half_size)
        # A lower confidence moves the position towards the centre, so that it has less influence.
        positions = (keypoints[..., :2] / half - 1) * seen * (0.5 + 0.5 * confidence)
        return self.embedded(torch.cat([positions, confidence, seen], -1))


class VectorLixelHead(nn.Module):
    """Feature vector → lixels of `points` points, by soft-argmax of 1D heatmaps as in the published head.

    The logits of a heatmap are those of a Gaussian of `SIGMA` bins, whose centre is linear in the feature, plus a free
    part that is initialised with zero:

        row · (place ⊗ t + free[:, n]) + centre t - (n - middle)² / 2 sigma²,   t = (n - middle) / sigma²

    So they are a product of rows and feature columns. While the free part is zero, the soft-argmax is the centre of the
    Gaussian, which needs no heatmap (`centers`). In this form, the head needs a tenth of the training samples that it
    needs with random logits.
    """

    def __init__(
        self, width: int, points: int, rank: int, hidden: int, channels: int, bins: tuple[int, int, int]
    ) -> None:
        """rank: length of a row. hidden, channels: sizes of the free part. bins: along (z, y, x)."""
        super().__init__()
        if channels > rank:
            raise ValueError(f"the free part has {channels} channels, but a row has only {rank} values")
        self.sizes = (bins[2], bins[1], bins[0])
        self.channels = channels
        self.places = nn.ModuleList(nn.Linear(width, rank) for _ in self.sizes)
        self.hidden = nn.Linear(width, hidden)
        self.free = nn.ModuleList(nn.Linear(hidden, channels * size) for size in self.sizes)
        self.rows = nn.ParameterList(nn.Parameter(torch.randn(points, rank)) for _ in self.sizes)
        self.centre = nn.Parameter(torch.zeros(points, 3))
        for layer in self.free:
            nn.init.zeros_(cast(nn.Linear, layer).weight)
            nn.init.zeros_(cast(nn.Linear, layer).bias)

    def centers(self, feature: Float[Tensor, "b c"]) -> Float[Tensor, "b points 3"]:
        """Centres of the Gaussians in lixels, not clamped to the grid: the output while the free part is zero."""
        axes = []
        for place, rows, size in zip(self.places, self.rows, self.sizes, strict=True):
            axes.append(place(feature).float() @ rows.T + (size - 1) / 2)
        return torch.stack(axes, -1) + self.centre

    def forward(self, feature: Float[Tensor, "b c"]) -> Float[Tensor, "b points 3"]:
        """Lixels, from 0 to the number of bins - 1 on each axis."""
        hidden = F.silu(self.hidden(feature))
        axes = []
        for axis, (place, free, rows, size) in enumerate(
            zip(self.places, self.free, self.rows, self.sizes, strict=True)
        ):
            offset = torch.arange(size, dtype=torch.float32, device=feature.device) - (size - 1) / 2
            ramp, bowl = offset / SIGMA**2, -offset.square() / (2 * SIGMA**2)
            columns = place(feature).float()[..., None] * ramp
            extra = free(hidden).float().unflatten(1, (self.channels, size))
            columns = torch.cat([columns[:, : self.channels] + extra, columns[:, self.channels :]], 1)
            columns = torch.cat([columns, torch.stack([ramp, bowl]).expand(feature.shape[0], 2, size)], 1)
            whole = torch.cat([rows, self.centre[:, axis, None], torch.ones_like(rows[:, :1])], 1)
            # It is faster to build a few heatmaps at once; thousands would not fit in the cache.
            with torch.autocast(feature.device.type, enabled=False):
                few = len(rows) <= FEW_POINTS
                axes.append(soft_argmax(whole @ columns) if few else linear_soft_argmax(columns, whole))
        return torch.stack(axes, -1)


class KeypointPoseNet(nn.Module):
    """Image crop → keypoints → trunk feature and lixel joints."""

    def __init__(self, estimator: nn.Module, trunk: Trunk, head: VectorLixelHead) -> None:
        """estimator: RGB crops in [0, 1] → keypoints (b, 26, 3): x, y in crop pixels, and confidence."""
        super().__init__()
        self.estimator = estimator
        self.trunk = trunk
        self.head = head

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> PoseOutput:
        return self.lift(self.estimator(image))

    def lift(self, keypoints: Float[Tensor, "b k d"]) -> PoseOutput:
        """The output from keypoints: x, y (crop pixels), confidence, and other inputs of the trunk."""
        feature = self.trunk(keypoints)
        return PoseOutput(self.head(feature), feature, keypoints[..., :3])


class _JointFeature(nn.Module):
    """Combines a feature with lixel joints. No gradient reaches the joints."""

    def __init__(self, width: int, joints: int, bins: tuple[int, int, int]) -> None:
        super().__init__()
        self.half_bins = (bins[2] / 2, bins[1] / 2, bins[0] / 2)
        self.embed = nn.Linear(joints * 3, width)
        self.block = ResidualBlock(width)
        self.norm = nn.LayerNorm(width)

    def combine(self, joints: Float[Tensor, "b j 3"], feature: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """The feature with the embedded joints added."""
        centered = joints.detach() / joints.new_tensor(self.half_bins) - 1
        return self.norm(self.block(feature + self.embed(centered.flatten(1))))


class JoinJoints(_JointFeature):
    """Trunk feature and lixel joints → feature of the mesh branch."""

    def forward(self, pose: PoseOutput) -> Float[Tensor, "b c"]:
        return self.combine(pose.joints, pose.feature)


class GlobalRotationRegressor(_JointFeature):
    """Feature and mesh joints → body parameters, by way of each bone's rotation relative to the camera.

    A keypoint shows the direction of a bone in the image, not its direction relative to the parent, and errors of local
    rotations accumulate along the chain. Therefore rotations are regressed in the camera's frame and then made local.
    Shape values are squashed to [0, 1], the range of Anny's phenotypes.
    """

    def __init__(
        self, width: int, joints: int, parents: Sequence[int], shape_values: int, bins: tuple[int, int, int]
    ) -> None:
        super().__init__(width, joints, bins)
        self.parents = tuple(parents)
        self.pose = nn.Linear(width, len(self.parents) * 6)
        self.shape = nn.Linear(width, shape_values)

    def forward(self, mesh_joints: Float[Tensor, "b j 3"], feature: Float[Tensor, "b c"]) -> BodyParams:
        return self.params(*self.camera_frame(mesh_joints, feature))

    def params(self, rotations: Float[Tensor, "b k 3 3"], shape: Float[Tensor, "b s"]) -> BodyParams:
        """Body parameters from the rotations of all bones relative to the camera, and shape values."""
        return BodyParams(local_rotations(rotations, self.parents), shape, torch.zeros_like(shape[:, :3]))

    def camera_frame(
        self, mesh_joints: Float[Tensor, "b j 3"], feature: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b k 3 3"], Float[Tensor, "b s"]]:
        """Rotations of all bones relative to the camera, and shape values. `mesh_joints`: lixels."""
        hidden = self.combine(mesh_joints, feature)
        rotations = sixd_to_matrix(self.pose(hidden).float().unflatten(-1, (len(self.parents), 6)))
        return rotations, self.shape(hidden).float().sigmoid()


def keypoint_config(body: Body, sizes: LiftingSizes = SIZES) -> NetworkConfig:
    """The description of the default network for `body`."""
    return NetworkConfig.for_body(body, "keypoint", "rtmpose-s", GRID, sizes)
