"""What networks and their pose nets return."""

import dataclasses
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class PoseOutput(TensorDataclass):
    """A pose net's answer for a batch of crops.

    joints: lixels (x, y, z). feature: whatever the assembly's pose-to-feature part builds on, of any shape; in the
    published network the (b, 64, 64, 64) map after the stem. keypoints: the pose net's 2D keypoints
    (x, y in crop pixels, confidence in [0, 1]), None if it has none.
    """

    joints: Float[Tensor, "b j 3"]
    feature: Float[Tensor, "b *feature"]
    keypoints: Float[Tensor, "b k 3"] | None = None


@dataclasses.dataclass(frozen=True)
class LixelOutput(TensorDataclass):
    """A network's answer for a batch of crops; lixels are (x, y, z) on the network's `LixelGrid`.

    joints: from the pose stage. vertices: the lixel mesh. mesh_joints: joint regressor applied to it.
    params: from the parameter regressor (root-relative: zero translation), None if the network has none.
    keypoints: the pose net's 2D keypoints (x, y in crop pixels, confidence in [0, 1]), None if it has none.
    """

    joints: Float[Tensor, "b j 3"]
    vertices: Float[Tensor, "b v 3"]
    mesh_joints: Float[Tensor, "b j 3"]
    params: BodyParams | None = None
    keypoints: Float[Tensor, "b k 3"] | None = None


@runtime_checkable
class LixelNetwork(Protocol):
    """What prediction and evaluation need of a network; `MeshNet` is one."""

    grid: LixelGrid

    def __call__(self, image: Tensor) -> LixelOutput:
        """RGB crops (b, 3, h, w) in [0, 1], of the grid's crop size, to lixels."""
        ...
