"""A body of one shape as animation programs know it."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class Rig(TensorDataclass):
    """A mesh, bones and skin weights, metres. A point of the mesh that only one bone holds is posed as
    `rotation @ turn @ (point - head) + start`, where rotation and start are the bone's own in that pose.

    bones, parents: every bone, also those that no parameter turns; -1 for the root, which is bone 0; parents come
    first. vertices: the mesh that is bound. weights: of each bone, not negative, rows summing to 1. heads: where
    bones start in that mesh. turns: from the axes of the bound mesh to those of each bone. offsets: from the start
    of the parent to that of the bone while nothing is turned; the root's is added to the body's translation.
    correctives: displacements of the bound mesh that poses add, by the amounts of `Body.corrective_amounts`.
    """

    bones: tuple[str, ...]
    parents: tuple[int, ...]
    vertices: Float[Tensor, "v 3"]
    weights: Float[Tensor, "v n"]
    heads: Float[Tensor, "n 3"]
    turns: Float[Tensor, "n 3 3"]
    offsets: Float[Tensor, "n 3"]
    correctives: Float[Tensor, "c v 3"]

    @property
    def inverse_binds(self) -> Float[Tensor, "n 4 4"]:
        """From the bound mesh to the bones' own axes and starts."""
        matrices = torch.eye(4, dtype=self.turns.dtype, device=self.turns.device).repeat(len(self.bones), 1, 1)
        matrices[:, :3, :3] = self.turns
        matrices[:, :3, 3] = -(self.turns * self.heads[:, None, :]).sum(-1)
        return matrices

    def in_axes(self, change: Float[Tensor, "3 3"]) -> "Rig":
        """The same rig in other axes; rotations of bones are then `change @ rotation @ change.T`."""
        back = change.T
        return dataclasses.replace(
            self,
            vertices=self.vertices @ back,
            heads=self.heads @ back,
            turns=change @ self.turns @ back,
            offsets=self.offsets @ back,
            correctives=self.correctives @ back,
        )
