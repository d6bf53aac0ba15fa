"""Points of a body as linear functions of its bone rotations, for fitting poses to points."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.anny import AnnyBody


class LinearPoints(nn.Module):
    """Weighted sums of an Anny body's vertices, written as `root + Σ rotation @ arm` over the posed bones.

    `rotation` is the global rotation of a bone, and `root` the position of the root bone. The arms depend on the shape
    only: they contain the vertices that a bone influences, and the offsets from the bone to its child bones.
    """

    _pairs: Tensor
    _pair_vertices: Tensor
    _influence: Tensor
    _subtree_influence: Tensor
    _carrier: Tensor
    _carrier_of_parent: Tensor

    def __init__(self, body: AnnyBody, regressor: Float[Tensor, "p v"]) -> None:
        """regressor: the points from the vertices; each row sums to 1 (or to 0 for a difference of points)."""
        super().__init__()
        # A copy, because this body moves between devices with the module.
        self.body = copy.deepcopy(body)
        parents = body.rig_parents
        posed = {body.rig_bones.index(bone): index for index, bone in enumerate(body.bones)}
        carrier: list[int] = []  # the posed bone that moves each bone of the rig
        for bone, parent in enumerate(parents):
            carrier.append(posed[bone] if bone in posed else carrier[parent])
        subtree = torch.eye(len(parents), device=body.weights.device)
        for bone in reversed(range(1, len(parents))):
            subtree[parents[bone]] += subtree[bone]
        influence = regressor @ body.weights
        # Weights of both signs may cancel on a bone that still moves the point, so pairs use absolute values.
        pairs = (regressor.abs() @ body.weights).nonzero()
        of_parent = [carrier[max(parent, 0)] for parent in parents]
        constants = {
            "_pairs": pairs,
            "_pair_vertices": regressor[pairs[:, 0]] * body.weights.T[pairs[:, 1]],
            "_influence": influence,
            "_subtree_influence": influence @ subtree.T,
            "_carrier": torch.tensor(carrier),
            "_carrier_of_parent": torch.eye(len(body.bones), device=body.weights.device)[of_parent],
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, shape: Float[Tensor, "*b s"]) -> Float[Tensor, "*b p k 3"]:
        """The arm of every point for every posed bone, metres."""
        vertices, heads, to_reference, offsets = self.body.rest_state(shape)
        point, bone = self._pairs.unbind(1)
        # One product for the whole batch, which is several times faster than one for each body.
        axes = ([1], [vertices.dim() - 2])
        summed = torch.tensordot(self._pair_vertices, vertices, axes)  # pyright: ignore[reportArgumentType] (accepts axes too)
        summed = summed.movedim(0, -2) - self._influence[point, bone, None] * heads[..., bone, :]
        rotated = torch.einsum("...nij,...nj->...ni", to_reference[..., bone, :, :], summed)
        points, bones = len(self._influence), self._carrier_of_parent.shape[1]
        arms = vertices.new_zeros(*shape.shape[:-1], points * bones, 3)
        arms = arms.index_add(-2, point * bones + self._carrier[bone], rotated).unflatten(-2, (points, bones))
        # Row 0 of the offsets is zero, because the arms do not contain the position of the root.
        return arms + torch.einsum("pn,...nc,nk->...pkc", self._subtree_influence, offsets, self._carrier_of_parent)
