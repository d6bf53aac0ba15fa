"""Linear blend skinning for all bodies. Any batch axes, device and dtype; differentiable."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class KinematicTree:
    """Bones sorted by depth, so that each depth is posed with one batched product."""

    def __init__(self, parents: Sequence[int]) -> None:
        """parents: parent of each bone, -1 for the root, which is bone 0; parents come before children."""
        if parents[0] != -1 or any(not 0 <= parent < bone for bone, parent in enumerate(parents) if bone > 0):
            raise ValueError("parents must be -1 for bone 0 and come before their children otherwise")
        depth = [0]
        for parent in parents[1:]:
            depth.append(depth[parent] + 1)
        self.parents = tuple(parents)
        levels = [[bone for bone, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]
        order = [bone for level in levels for bone in level]
        index = {bone: i for level in levels for i, bone in enumerate(level)}
        self._levels = [(level, [index[parents[bone]] for bone in level]) for level in levels[1:]]
        self._inverse = [order.index(bone) for bone in range(len(parents))]

    def pose(
        self, rotations: Float[Tensor, "*b k 3 3"], offsets: Float[Tensor, "*#b k 3"], root: Float[Tensor, "*b 3"]
    ) -> tuple[Float[Tensor, "*b k 3 3"], Float[Tensor, "*b k 3"]]:
        """Forward kinematics. Returns global rotations and positions of the posed bone heads.

        rotations: rotation of each bone relative to its parent. At rest, the bone's axes are parallel to the axes of
        the frame. offsets: head of each bone relative to the head of its parent at rest, metres (row 0 is not used).
        root: position of the root bone.
        """
        turned, heads = [rotations[..., :1, :, :]], [root[..., None, :]]
        for bones, parents in self._levels:
            rotation, head = turned[-1][..., parents, :, :], heads[-1][..., parents, :]
            heads.append(head + (rotation * offsets[..., bones, None, :]).sum(-1))
            turned.append(rotation @ rotations[..., bones, :, :])
        return torch.cat(turned, -3)[..., self._inverse, :, :], torch.cat(heads, -2)[..., self._inverse, :]


def global_rotations(pose: Float[Tensor, "*b k 3 3"], parents: Sequence[int]) -> Float[Tensor, "*b k 3 3"]:
    """Convert rotations relative to the parents to rotations relative to the frame."""
    found: list[Tensor] = []
    for bone, parent in enumerate(parents):
        local = pose[..., bone, :, :]
        found.append(local if parent < 0 else found[parent] @ local)
    return torch.stack(found, -3)


def local_rotations(rotations: Float[Tensor, "*b k 3 3"], parents: Sequence[int]) -> Float[Tensor, "*b k 3 3"]:
    """The inverse of `global_rotations`."""
    above = [max(parent, 0) for parent in parents]
    local = rotations[..., above, :, :].mT @ rotations
    return torch.cat([rotations[..., :1, :, :], local[..., 1:, :, :]], -3)


def blend(
    points: Float[Tensor, "*#b v 3"],
    weights: Float[Tensor, "v k"],
    linear: Float[Tensor, "*b k 3 3"],
    offsets: Float[Tensor, "*b k 3"],
) -> Float[Tensor, "*b v 3"]:
    """Move each point by the weighted mean of the bones' affine maps x -> linear x + offset.

    One matrix product blends the maps, with the vertices as the last, contiguous axis; three fused multiply-adds apply
    them. On a CPU this is several times faster than blending a matrix per vertex.
    """
    maps = torch.cat([linear, offsets[..., None]], -1).flatten(-2).transpose(-1, -2)
    along_x, along_y, along_z, moved = (maps @ weights.T).unflatten(-2, (3, 4)).unbind(-2)
    x, y, z = points.transpose(-1, -2)[..., None, :].unbind(-3)
    moved = torch.addcmul(moved, along_x, x)
    moved = torch.addcmul(moved, along_y, y)
    moved = torch.addcmul(moved, along_z, z)
    return moved.transpose(-1, -2)
