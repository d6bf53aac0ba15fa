"""The one interface of all bodies: parameters in, mesh out."""

import dataclasses
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

    pose: rotation of each bone against its parent (the first: against the camera or world), in axes that
    are parallel to the frame when the body is at rest. shape: the model's shape values. translation: metres.
    """

    pose: Float[Tensor, "*b k 3 3"]
    shape: Float[Tensor, "*b s"]
    translation: Float[Tensor, "*b 3"]

    def turned(self, rotation: Float[Tensor, "*b 3 3"]) -> "BodyParams":
        """The body turned about its root bone by `rotation`, given in the frame's axes."""
        root = rotation[..., None, :, :] @ self.pose[..., :1, :, :]
        return dataclasses.replace(self, pose=torch.cat([root, self.pose[..., 1:, :, :]], -3))


@dataclasses.dataclass(frozen=True)
class BodyMesh(TensorDataclass):
    """A posed mesh, metres: vertices and the body's joints in the order of its skeleton."""

    vertices: Float[Tensor, "*b v 3"]
    joints: Float[Tensor, "*b j 3"]


class Body(nn.Module):
    """A parametric body: SMPL, MANO, Anny or the toy.

    Constant tensors are non-persistent buffers: a body's data never enter a checkpoint.
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
    """Joints as weighted sums of vertices, rows summing to 1."""
    bone_mirror: tuple[int, ...] | None
    """Permutation of the bones that swaps left and right; None for one-sided bodies (a hand)."""
    vertex_mirror: Int[Tensor, "v"] | None
    """Permutation of the vertices that swaps left and right, of bodies that are exactly symmetric; else None."""

    @abstractmethod
    def forward(self, params: BodyParams) -> BodyMesh:
        """Poses the body. Differentiable; float32 or float64 (see `Module.to`); any batch axes."""

    @abstractmethod
    def rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """The body of one shape as a mesh with bones and skin weights, in the body's frame."""

    @abstractmethod
    def rig_rotations(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b n 3 3"]:
        """Rotation of every bone of the rig against its parent, from the pose of the K posed bones."""

    def corrective_amounts(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b c"]:
        """How much of each of the rig's correctives a pose adds to the bound mesh; by default there are none."""
        return pose.new_zeros(*pose.shape[:-3], 0)

    @property
    def upright(self) -> Float[Tensor, "3 3"]:
        """From the body's frame to that of animation programs: x to its left, y up, z to its front."""
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
        """Parameters of the mirror image across x = 0 (translation included).

        A one-sided body (a hand) keeps its bones in place: the result poses the same-sided mesh so that it
        mirrors the motion, as SMPL's and MANO's published augmentation does.
        """
        pose = params.pose if self.bone_mirror is None else params.pose[..., list(self.bone_mirror), :, :]
        sign = params.translation.new_tensor([-1.0, 1.0, 1.0])
        return BodyParams(mirror_rotations(pose), params.shape, params.translation * sign)


class HasFullMesh(Body):
    """A body whose network mesh can be refined to a fuller one with texture coordinates."""

    full_faces: Int[Tensor, "f 3"]
    full_uv: Float[Tensor, "t 2"]
    full_face_uv: Int[Tensor, "f 3"]

    @abstractmethod
    def full_mesh(self, vertices: Float[Tensor, "*b v 3"]) -> Float[Tensor, "*b w 3"]:
        """The fuller mesh of the same pose."""

    @abstractmethod
    def full_rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """The rig of the fuller mesh; skinning it comes near to `full_mesh`, but is not equal."""
