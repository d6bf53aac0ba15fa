"""Outputs of networks and of their pose nets, and the interface of a network."""

import dataclasses
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class PoseOutput(TensorDataclass):
    """The output of a pose net for a batch of crops.

    joints: lixels (x, y, z). feature: input of the network's `pose_to_feature`, of any shape; in the published network
    the (b, 64, 64, 64) map after the stem. keypoints: 2D keypoints of the pose net (x, y in crop pixels, confidence in
    [0, 1]), or None.
    """

    joints: Float[Tensor, "b j 3"]
    feature: Float[Tensor, "b *feature"]
    keypoints: Float[Tensor, "b k 3"] | None = None


@dataclasses.dataclass(frozen=True)
class LixelOutput(TensorDataclass):
    """The output of a network for a batch of crops. Lixels are (x, y, z) on the network's `LixelGrid`.

    joints: lixels from the pose stage. vertices: the lixel mesh. mesh_joints: joints regressed from the lixel mesh.
    params: body parameters with zero translation, None if the network has no parameter regressor. keypoints: 2D
    keypoints of the pose net (x, y in crop pixels, confidence in [0, 1]), or None.
    """

    joints: Float[Tensor, "b j 3"]
    vertices: Float[Tensor, "b v 3"]
    mesh_joints: Float[Tensor, "b j 3"]
    params: BodyParams | None = None
    keypoints: Float[Tensor, "b k 3"] | None = None


@runtime_checkable
class LixelNetwork(Protocol):
    """The interface of a network for prediction and evaluation. `MeshNet` is one."""

    grid: LixelGrid

    def __call__(self, image: Tensor) -> LixelOutput:
        """Predict lixels from RGB crops (b, 3, h, w) in [0, 1], of the grid's crop size."""
        ...
