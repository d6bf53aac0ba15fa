"""Parts of the hand network, which lifts MediaPipe's landmarks to lixels and parameters of the right Anny hand.

As in the body's network (`models.keypoint`), only the landmark network, which was trained on real photos, uses the
image. The other parts are trained on sampled poses (docs/hands.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.config import LiftingSizes, NetworkConfig
from i2l_meshnet.models.keypoint import KeypointPoseNet, Trunk
from i2l_meshnet.models.mediapipe import LANDMARK_CROP, LANDMARKS, Landmarks
from i2l_meshnet.models.output import PoseOutput

GRID = LixelGrid(crop_size=LANDMARK_CROP, depth_extent=0.48, margin=0.1, depth_axis="crop")
"""A hand fills about half of its crop; a large hand extends 0.2 m from the wrist."""
SIZES = LiftingSizes(
    width=448, blocks=3, joint_hidden=64, joint_channels=4, mesh_rank=64, mesh_hidden=128, mesh_channels=8
)
WORLD_UNIT = 0.1
"""Metres that are scaled to the same input value as half a crop."""
CHANNELS = 7


def landmark_features(found: Landmarks) -> Float[Tensor, "b 21 7"]:
    """The trunk's input for each point: x, y (crop pixels), presence, depth (crop pixels), world position (metres)."""
    presence = found.presence[..., None, None].expand(*found.points.shape[:-1], 1)
    return torch.cat([found.points[..., :2], presence, found.points[..., 2:], found.world], -1)


class HandTrunk(Trunk):
    """Landmark features → a feature vector."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__(LANDMARKS * (CHANNELS - 1), width, blocks)

    def forward(self, keypoints: Float[Tensor, "b 21 7"]) -> Float[Tensor, "b c"]:
        half = LANDMARK_CROP[0] / 2
        positions, depth = keypoints[..., :2] / half - 1, keypoints[..., 3:4] / half
        return self.embedded(torch.cat([positions, depth, keypoints[..., 4:] / WORLD_UNIT], -1))


class HandPoseNet(KeypointPoseNet):
    """Hand crop → landmarks → trunk feature and lixel joints. `lift` accepts `landmark_features`."""

    def forward(self, image: Float[Tensor, "b 3 224 224"]) -> PoseOutput:
        return self.lift(landmark_features(self.estimator(image)))


def hand_config(body: Body, sizes: LiftingSizes = SIZES) -> NetworkConfig:
    """The description of the hand network for `body`."""
    return NetworkConfig.for_body(body, "hand", "mediapipe-hand-full", GRID, sizes)
