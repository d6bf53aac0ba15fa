"""The interface of all bodies: parameters in, mesh out."""

import dataclasses
import warnings
from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.geometry.rotations import mirror_rotations
from i2l_meshnet.skeletons import Skeleton
from i2l_meshnet.tensors import TensorDataclass

BodyKind = Literal["body", "left hand", "right hand"]


@dataclasses.dataclass(frozen=True)
class BodyParams(TensorDataclass):
    """Parameters of a body model.

    pose: rotation of each bone relative to its parent (of the root: relative to the camera or world), in axes that are
    parallel to the frame when the body is at rest. shape: the model's shape values. translation: metres.
    """

    pose: Float[Tensor, "*b k 3 3"]
    shape: Float[Tensor, "*b s"]
    translation: Float[Tensor, "*b 3"]

    def rotated(self, rotation: Float[Tensor, "*b 3 3"]) -> "BodyParams":
        """The body rotated about its root bone. The rotation is given in the axes of the frame."""
        root = rotation[..., None, :, :] @ self.pose[..., :1, :, :]
        return dataclasses.replace(self, pose=torch.cat([root, self.pose[..., 1:, :, :]], -3))

    def turned(self, rotation: Float[Tensor, "*b 3 3"]) -> "BodyParams":
        """The name of `rotated` in version 0.1, with a warning."""
        warnings.warn("BodyParams.turned is now BodyParams.rotated", DeprecationWarning, stacklevel=2)
        return self.rotated(rotation)


@dataclasses.dataclass(frozen=True)
class BodyMesh(TensorDataclass):
    """A posed mesh, metres: vertices, and joints in the order of the body's skeleton."""

    vertices: Float[Tensor, "*b v 3"]
    joints: Float[Tensor, "*b j 3"]


class Body(nn.Module):
    """A parametric body: SMPL, MANO, Anny or the toy.

    Constant tensors are non-persistent buffers, so a checkpoint never contains the data of a body.
    """

    name: str
    kind: BodyKind = "body"
    licence: str
    skeleton: Skeleton
    bones: tuple[str, ...]
    """Names of the K posed bones."""
    parents: tuple[int, ...]
    """Parent of each bone, -1 for the root; parents come before children."""
    shape_names: tuple[str, ...]
    faces: Int[Tensor, "f 3"]
    joint_regressor: Float[Tensor, "j v"]
    """Joints as weighted sums of vertices; each row sums to 1."""
    bone_mirror: tuple[int, ...] | None
    """Permutation of the bones that swaps left and right; None for a hand."""
    vertex_mirror: Int[Tensor, "v"] | None
    """Permutation of the vertices that swaps left and right; None if the body is not exactly symmetric."""

    @abstractmethod
    def forward(self, params: BodyParams) -> BodyMesh:
        """Pose the body. Differentiable; float32 or float64 (see `Module.to`); any batch axes."""

    @abstractmethod
    def rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """The body of one shape as a mesh with bones and skin weights, in the body's frame."""

    @abstractmethod
    def rig_rotations(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b n 3 3"]:
        """Rotation of every bone of the rig relative to its parent, from the pose of the K posed bones."""

    def corrective_amounts(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b c"]:
        """Factors of the rig's correctives in a pose. By default there are no correctives."""
        return pose.new_zeros(*pose.shape[:-3], 0)

    @property
    def upright(self) -> Float[Tensor, "3 3"]:
        """Rotation from the body's frame to that of animation programs: x to its left, y up, z to its front."""
        return torch.eye(3, dtype=self.joint_regressor.dtype, device=self.joint_regressor.device)

    def rest_params(self, *batch: int) -> BodyParams:
        """The neutral shape at rest, on the body's device and in its dtype."""
        like = self.joint_regressor
        pose = torch.eye(3, dtype=like.dtype, device=like.device).expand(*batch, len(self.bones), 3, 3)
        return BodyParams(pose, self.mean_shape.expand(*batch, -1), like.new_zeros(*batch, 3))

    @property
    def mean_shape(self) -> Float[Tensor, "s"]:
        """Shape values of the average body."""
        return self.joint_regressor.new_zeros(len(self.shape_names))

    def mirror(self, params: BodyParams) -> BodyParams:
        """Parameters of the mirror image at x = 0, including the translation.

        A hand keeps its bones: the result poses a hand of the same side so that it mirrors the motion, like the
        published augmentation of SMPL and MANO.
        """
        pose = params.pose if self.bone_mirror is None else params.pose[..., list(self.bone_mirror), :, :]
        sign = params.translation.new_tensor([-1.0, 1.0, 1.0])
        return BodyParams(mirror_rotations(pose), params.shape, params.translation * sign)
