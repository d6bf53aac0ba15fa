"""A body of one shape as a mesh with bones and skin weights, as animation programs use it."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class Rig(TensorDataclass):
    """Mesh, bones and skin weights, in metres.

    A vertex with one bone influence is posed as `rotation @ bone_rotation @ (vertex - head) + posed_head`.
    `rotation` is the bone's rotation in the pose, and `posed_head` is the position of its head.

    bones: names of all bones, including bones without a parameter. parents: parent of each bone, -1 for the root, which
    is bone 0; parents come first. vertices: the bound mesh. weights: skin weights, not negative, each row sums to 1.
    heads: bone heads in the bound mesh. bone_rotations: rotation from mesh axes to the axes of each bone. offsets: head
    of each bone relative to the head of its parent in the rest pose; for the root, added to the body's translation.
    correctives: displacements of the bound mesh, weighted by `Body.corrective_amounts` of the pose.
    """

    bones: tuple[str, ...]
    parents: tuple[int, ...]
    vertices: Float[Tensor, "v 3"]
    weights: Float[Tensor, "v n"]
    heads: Float[Tensor, "n 3"]
    bone_rotations: Float[Tensor, "n 3 3"]
    offsets: Float[Tensor, "n 3"]
    correctives: Float[Tensor, "c v 3"]

    @property
    def inverse_binds(self) -> Float[Tensor, "n 4 4"]:
        """Transform from the bound mesh to each bone's own axes and head."""
        matrices = torch.eye(4, dtype=self.heads.dtype, device=self.heads.device).repeat(len(self.bones), 1, 1)
        matrices[:, :3, :3] = self.bone_rotations
        matrices[:, :3, 3] = -(self.bone_rotations * self.heads[:, None, :]).sum(-1)
        return matrices

    def in_axes(self, change: Float[Tensor, "3 3"]) -> "Rig":
        """The same rig in other axes. Rotations of bones become `change @ rotation @ change.T`."""
        back = change.T
        return dataclasses.replace(
            self,
            vertices=self.vertices @ back,
            heads=self.heads @ back,
            bone_rotations=change @ self.bone_rotations @ back,
            offsets=self.offsets @ back,
            correctives=self.correctives @ back,
        )
