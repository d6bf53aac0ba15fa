"""Points of a body as linear functions of its bones' rotations, which is what fitting poses to points needs."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.anny import AnnyBody


class LinearPoints(nn.Module):
    """Weighted sums of an Anny body's vertices, written as `root + Σ rotation @ arm` over the posed bones.

    `rotation` is a bone's against the frame, and `root` where the root bone is. The arms follow from the shape alone:
    what a bone carries itself, and the offsets from it to the bones that hang on it.
    """

    _pairs: Tensor
    _pair_vertices: Tensor
    _held: Tensor
    _below: Tensor
    _carrier: Tensor
    _above: Tensor

    def __init__(self, body: AnnyBody, regressor: Float[Tensor, "p v"]) -> None:
        """regressor: the points from the vertices, rows summing to 1 (or to 0: what a point is moved by)."""
        super().__init__()
        # A copy, because this one moves from device to device with the module.
        self.body = copy.deepcopy(body)
        parents = body.rig_parents
        carrier = [body.rig_bones.index(bone) for bone in body.bones]
        posed = {rig: bone for bone, rig in enumerate(carrier)}
        moved_by: list[int] = []
        for bone, parent in enumerate(parents):
            moved_by.append(posed[bone] if bone in posed else moved_by[parent])
        subtree = torch.eye(len(parents), device=body.weights.device)
        for bone in reversed(range(1, len(parents))):
            subtree[parents[bone]] += subtree[bone]
        held = regressor @ body.weights
        # Weights of either sign may sum to nothing on a bone that carries them all the same.
        pairs = (regressor.abs() @ body.weights).nonzero()
        above = [moved_by[max(parent, 0)] for parent in parents]
        constants = {
            "_pairs": pairs,
            "_pair_vertices": regressor[pairs[:, 0]] * body.weights.T[pairs[:, 1]],
            "_held": held,
            "_below": held @ subtree.T,
            "_carrier": torch.tensor(moved_by),
            "_above": torch.eye(len(body.bones), device=body.weights.device)[above],
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, shape: Float[Tensor, "*b s"]) -> Float[Tensor, "*b p k 3"]:
        """The arms of every point on every posed bone, metres."""
        vertices, heads, turn, offsets = self.body.rest_state(shape)
        point, bone = self._pairs.unbind(1)
        # One product for the whole batch, which is several times as fast as one for each body.
        axes = ([1], [vertices.dim() - 2])
        summed = torch.tensordot(self._pair_vertices, vertices, axes)  # pyright: ignore[reportArgumentType] (takes axes too)
        summed = summed.movedim(0, -2)
        held = summed - self._held[point, bone, None] * heads[..., bone, :]
        carried = torch.einsum("...nij,...nj->...ni", turn[..., bone, :, :], held)
        points, bones = len(self._held), self._above.shape[1]
        arms = vertices.new_zeros(*shape.shape[:-1], points * bones, 3)
        arms = arms.index_add(-2, point * bones + self._carrier[bone], carried).unflatten(-2, (points, bones))
        # Row 0 of the offsets is zero: the root is where it is.
        return arms + torch.einsum("pn,...nc,nk->...pkc", self._below, offsets, self._above)
