"""The hand network: MediaPipe's landmarks lifted to lixel joints, a lixel mesh and parameters of the right Anny hand.

As in the body's network (`models.keypoint`), a network that was trained on real photographs is the only part that sees
the picture; all that follows is trained on sampled poses (docs/hands.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.config import LiftingSizes, NetworkConfig
from i2l_meshnet.models.keypoint import (
    GlobalRotationRegressor,
    JoinJoints,
    ResidualBlock,
    VectorLixelHead,
    lifting_heads,
    lifting_sizes,
)
from i2l_meshnet.models.mediapipe import LANDMARK_CROP, LANDMARKS, LandmarkNet, Landmarks
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import PoseOutput

GRID = LixelGrid(crop_size=LANDMARK_CROP, depth_extent=0.48, margin=0.1, depth_axis="crop")
"""A hand fills about half of its crop; a large one reaches 0.2 m from the wrist."""
SIZES = LiftingSizes(
    width=448, blocks=3, joint_hidden=64, joint_channels=4, mesh_rank=64, mesh_hidden=128, mesh_channels=8
)
WORLD_UNIT = 0.1
"""Metres that count as much as half a crop."""
CHANNELS = 7


def landmark_features(found: Landmarks) -> Float[Tensor, "b 21 7"]:
    """What the trunk is given of each point: x, y (crop pixels), presence, depth (crop pixels), world (metres)."""
    presence = found.presence[..., None, None].expand(*found.points.shape[:-1], 1)
    return torch.cat([found.points[..., :2], presence, found.points[..., 2:], found.world], -1)


class HandTrunk(nn.Module):
    """Landmark features → a feature vector."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.embed = nn.Linear(LANDMARKS * (CHANNELS - 1), width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)

    def forward(self, keypoints: Float[Tensor, "b 21 7"]) -> Float[Tensor, "b c"]:
        half = LANDMARK_CROP[0] / 2
        places, depth = keypoints[..., :2] / half - 1, keypoints[..., 3:4] / half
        values = torch.cat([places, depth, keypoints[..., 4:] / WORLD_UNIT], -1)
        return self.norm(self.blocks(self.embed(values.flatten(1))))


class HandPoseNet(nn.Module):
    """Hand crop → landmarks → trunk feature and lixel joints."""

    def __init__(self, estimator: LandmarkNet, trunk: HandTrunk, head: VectorLixelHead) -> None:
        super().__init__()
        self.estimator = estimator
        self.trunk = trunk
        self.head = head

    def forward(self, image: Float[Tensor, "b 3 224 224"]) -> PoseOutput:
        return self.lift(landmark_features(self.estimator(image)))

    def lift(self, keypoints: Float[Tensor, "b 21 7"]) -> PoseOutput:
        """The same from `landmark_features`."""
        feature = self.trunk(keypoints)
        return PoseOutput(self.head(feature), feature, keypoints[..., :3])


def hand_config(body: Body, sizes: LiftingSizes = SIZES) -> NetworkConfig:
    """Description of the hand network for `body`."""
    return NetworkConfig.for_body(body, "hand", "mediapipe-hand-full", GRID, sizes)


def build_hand(config: NetworkConfig, body: Body) -> MeshNet:
    """The hand network as `config` describes it; the landmark network's weights are random until loaded."""
    sizes, joints, bins = lifting_sizes(config), len(config.joints), config.grid.shape
    joint_head, mesh_head = lifting_heads(config)
    return MeshNet(
        HandPoseNet(LandmarkNet(), HandTrunk(sizes.width, sizes.blocks), joint_head),
        JoinJoints(sizes.width, joints, bins),
        mesh_head,
        GlobalRotationRegressor(sizes.width, joints, body.parents, config.shape_values, bins),
        body.joint_regressor,
        config.grid,
        config,
    )
