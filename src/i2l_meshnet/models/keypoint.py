"""The default network: RTMPose's keypoints lifted to lixel joints, a lixel mesh and body parameters.

RTMPose-s, trained on real photographs, is the image network. All that follows sees only its 26 keypoints with their
confidences, so it is trained on sampled poses of the body without pictures (docs/default-model.md).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.skinning import local_rotations
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid, soft_argmax
from i2l_meshnet.geometry.rotations import sixd_to_matrix
from i2l_meshnet.models.config import LiftingSizes, NetworkConfig
from i2l_meshnet.models.fitting import ParameterFit
from i2l_meshnet.models.lixel_head import linear_soft_argmax
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import PoseOutput
from i2l_meshnet.models.rtmpose import CROP_SIZE, KEYPOINTS, RTMPose
from i2l_meshnet.skeletons import HALPE26

GRID = LixelGrid(crop_size=CROP_SIZE, depth_extent=2.4, margin=0.5, depth_axis="crop")
"""Reaches half a crop beyond each side, so that a body that is cut off still lies on it."""
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
"""Width in bins of the Gaussian heatmaps that the heads start from; the published network's Gaussians have it too."""
FEW = 64
"""Heads of up to this many points make their heatmaps in one product."""
LEAST_CONFIDENCE = 0.12
"""Keypoints below this are taken as unseen: their place says nothing."""


class ResidualBlock(nn.Module):
    """Pre-norm residual MLP block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width)
        self.reduce = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return x + self.reduce(F.silu(self.expand(self.norm(x))))


class KeypointTrunk(nn.Module):
    """26 keypoints (crop pixels, confidence) → a feature vector."""

    def __init__(self, width: int, blocks: int, crop_size: tuple[int, int]) -> None:
        super().__init__()
        self.half_size = (crop_size[1] / 2, crop_size[0] / 2)
        self.embed = nn.Linear(KEYPOINTS * 4, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)

    def forward(self, keypoints: Float[Tensor, "b 26 3"]) -> Float[Tensor, "b c"]:
        confidence = keypoints[..., 2:].clamp(0, 1)
        seen = (confidence > LEAST_CONFIDENCE).to(confidence.dtype)
        half = keypoints.new_tensor(self.half_size)
        # Doubtful places pull towards the centre, so that they weigh less.
        places = (keypoints[..., :2] / half - 1) * seen * (0.5 + 0.5 * confidence)
        values = torch.cat([places, confidence, seen], -1).flatten(1)
        return self.norm(self.blocks(self.embed(values)))


class VectorLixelHead(nn.Module):
    """Feature vector → lixels of `points` points, through 1D heatmaps read by soft-argmax, as the published head does.

    The logits of a point's heatmap are those of a Gaussian of `SIGMA` bins, whose centre is linear in the feature,
    plus a free part that is zero at first:

        row · (place ⊗ t + free[:, n]) + centre t - (n - middle)² / 2 sigma²,   t = (n - middle) / sigma²

    so rows times feature columns again. While the free part is zero the soft-argmax is the Gaussian's centre, known
    without the heatmap (`centers`): in that form the head learns in a tenth of the samples that it takes from
    heatmaps of random logits.
    """

    def __init__(
        self, width: int, points: int, rank: int, hidden: int, channels: int, bins: tuple[int, int, int]
    ) -> None:
        """rank: length of a row. hidden, channels: of the free part. bins: along (z, y, x), as `LixelGrid.shape`."""
        super().__init__()
        if channels > rank:
            raise ValueError(f"a free part of {channels} channels does not fit rows of {rank} values")
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
        """Where the Gaussians lie, lixels; not held to the grid. The lixels while the free part is zero."""
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
            # A few heatmaps are quicker made at once; thousands would not fit the cache.
            with torch.autocast(feature.device.type, enabled=False):
                axes.append(soft_argmax(whole @ columns) if len(rows) <= FEW else linear_soft_argmax(columns, whole))
        return torch.stack(axes, -1)


class KeypointPoseNet(nn.Module):
    """Image crop → keypoints → trunk feature and lixel joints."""

    def __init__(self, estimator: nn.Module, trunk: KeypointTrunk, head: VectorLixelHead) -> None:
        """estimator: RGB crops in [0, 1] to keypoints (b, 26, 3), crop pixels and confidence."""
        super().__init__()
        self.estimator = estimator
        self.trunk = trunk
        self.head = head

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> PoseOutput:
        return self.lift(self.estimator(image))

    def lift(self, keypoints: Float[Tensor, "b 26 3"]) -> PoseOutput:
        """The same from keypoints (crop pixels, confidence)."""
        feature = self.trunk(keypoints)
        return PoseOutput(self.head(feature), feature, keypoints)


class JoinJoints(nn.Module):
    """Trunk feature and lixel joints → feature of the mesh branch. No gradient reaches the joints."""

    def __init__(self, width: int, joints: int, bins: tuple[int, int, int]) -> None:
        super().__init__()
        self.half_bins = (bins[2] / 2, bins[1] / 2, bins[0] / 2)
        self.embed = nn.Linear(joints * 3, width)
        self.block = ResidualBlock(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, pose: PoseOutput) -> Float[Tensor, "b c"]:
        joints = pose.joints.detach() / pose.joints.new_tensor(self.half_bins) - 1
        return self.norm(self.block(pose.feature + self.embed(joints.flatten(1))))


class GlobalRotationRegressor(nn.Module):
    """Feature and mesh joints → body parameters, by way of each bone's rotation against the camera.

    A keypoint shows how a bone lies in the picture, not how it lies against its parent, and errors of local
    rotations add up along the chain; so the rotations are regressed in the camera's frame and made local after.
    Shape values are squashed to [0, 1], the range that Anny's phenotypes have.
    """

    def __init__(
        self, width: int, joints: int, parents: Sequence[int], shape_values: int, bins: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.half_bins = (bins[2] / 2, bins[1] / 2, bins[0] / 2)
        self.parents = tuple(parents)
        self.embed = nn.Linear(joints * 3, width)
        self.block = ResidualBlock(width)
        self.norm = nn.LayerNorm(width)
        self.pose = nn.Linear(width, len(self.parents) * 6)
        self.shape = nn.Linear(width, shape_values)

    def forward(self, mesh_joints: Float[Tensor, "b j 3"], feature: Float[Tensor, "b c"]) -> BodyParams:
        return self.params(*self.camera_frame(mesh_joints, feature))

    def params(self, rotations: Float[Tensor, "b k 3 3"], shape: Float[Tensor, "b s"]) -> BodyParams:
        """Rotations of all bones against the camera, and shape values, to parameters of the body."""
        return BodyParams(local_rotations(rotations, self.parents), shape, torch.zeros_like(shape[:, :3]))

    def camera_frame(
        self, mesh_joints: Float[Tensor, "b j 3"], feature: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b k 3 3"], Float[Tensor, "b s"]]:
        """Rotations of all bones against the camera, and shape values. `mesh_joints`: lixels."""
        joints = mesh_joints.detach() / mesh_joints.new_tensor(self.half_bins) - 1
        hidden = self.norm(self.block(feature + self.embed(joints.flatten(1))))
        rotations = sixd_to_matrix(self.pose(hidden).float().unflatten(-1, (len(self.parents), 6)))
        return rotations, self.shape(hidden).float().sigmoid()


def keypoint_config(body: Body, sizes: LiftingSizes = SIZES) -> NetworkConfig:
    """Description of the default network for `body`."""
    return NetworkConfig.for_body(body, "keypoint", "rtmpose-s", GRID, sizes)


def build_keypoint(config: NetworkConfig, body: Body) -> MeshNet:
    """The default network as `config` describes it; RTMPose's weights are random until loaded."""
    sizes, joints, bins = lifting_sizes(config), len(config.joints), config.grid.shape
    trunk = KeypointTrunk(sizes.width, sizes.blocks, config.grid.crop_size)
    joint_head, mesh_head = lifting_heads(config)
    regressor = None
    if config.regresses_parameters:
        regressor = GlobalRotationRegressor(sizes.width, joints, body.parents, config.shape_values, bins)
    return MeshNet(
        KeypointPoseNet(RTMPose(), trunk, joint_head),
        JoinJoints(sizes.width, joints, bins),
        mesh_head,
        regressor,
        body.joint_regressor,
        config.grid,
        config,
        ParameterFit(body) if sizes.fit and isinstance(body, AnnyBody) else None,
    )


def lifting_heads(config: NetworkConfig) -> tuple[VectorLixelHead, VectorLixelHead]:
    """The heads for joints and vertices of a network that lifts keypoints."""
    sizes, joints, bins = lifting_sizes(config), len(config.joints), config.grid.shape
    return (
        VectorLixelHead(sizes.width, joints, joints, sizes.joint_hidden, sizes.joint_channels, bins),
        VectorLixelHead(sizes.width, config.vertices, sizes.mesh_rank, sizes.mesh_hidden, sizes.mesh_channels, bins),
    )


def lifting_sizes(config: NetworkConfig) -> LiftingSizes:
    """The sizes in a description. Raises InputError if it has none."""
    if config.sizes is None:
        raise InputError(f"the description of a {config.kind} network lacks its sizes")
    return config.sizes


def mirror_keypoints(keypoints: Float[Tensor, "*b 26 3"], width: int) -> Float[Tensor, "*b 26 3"]:
    """Keypoints of the mirror image of a crop of `width` pixels: x → width - 1 - x, left and right swapped."""
    swapped = keypoints[..., list(HALPE26.mirror_permutation), :]
    return torch.cat([width - 1 - swapped[..., :1], swapped[..., 1:]], -1)
