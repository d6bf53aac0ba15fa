"""A body's rig and how it moves, in the frame of animation programs."""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies.base import Body, BodyParams, HasFullMesh
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.errors import InputError
from i2l_meshnet.tensors import TensorDataclass

BLOCK = 256
"""Poses that are worked out at once."""


@dataclasses.dataclass(frozen=True)
class RigMotion(TensorDataclass):
    """A rig and T poses of it, metres and seconds, float64 on the CPU.

    rig: unturned, it stands upright: x to the body's left, y up, z to its front. rotations: of every bone against
    its parent, the root's against the world, which is the camera frame seen as glTF has it (x right, y up, z towards
    the viewer). places: of the root bone in that world. amounts: of the rig's correctives.
    """

    rig: Rig
    rotations: Float[Tensor, "t n 3 3"]
    places: Float[Tensor, "t 3"]
    amounts: Float[Tensor, "t c"]
    times: Float[Tensor, "t"]


class RigClip:
    """Parameters in the camera frame as the motion of a rig of their mean shape: a rig has one shape.

    Poses are worked out where they are asked for, so that a long clip's are never in memory all at once.
    """

    def __init__(self, body: Body, params: BodyParams, times: Float[Tensor, "t"], full: bool = False) -> None:
        """full: the rig of the full mesh, where the body has one.

        Raises InputError unless there is one time for each pose, in seconds, not negative and increasing.
        """
        times = times.detach().double().cpu()
        if params.pose.ndim != 4 or len(params.pose) != len(times) or not len(times):
            raise InputError(f"{len(times)} times do not fit poses of shape {tuple(params.pose.shape)}")
        if not (times[0] >= 0 and (times.diff() > 0).all() and times.isfinite().all()):
            raise InputError("the times of a clip are seconds, not negative, each later than the one before")
        self.times, self._body, self._params = times, body, params
        with torch.no_grad():
            shape = params.shape.mean(0).to(body.joint_regressor.device, body.joint_regressor.dtype)
            rig = body.full_rig(shape) if full and isinstance(body, HasFullMesh) else body.rig(shape)
            self._offset = rig.offsets[0]
            self.rig = rig.in_axes(body.upright).to("cpu", torch.float64)

    def __len__(self) -> int:
        return len(self.times)

    def parts(self) -> Iterator[slice]:
        """The poses in parts that fit into memory."""
        return (slice(start, start + BLOCK) for start in range(0, len(self), BLOCK))

    @torch.no_grad()
    def motion(self, part: slice = slice(None)) -> RigMotion:
        """Some of the poses, or all."""
        body = self._body
        params = self._params[part].to(body.joint_regressor.device, body.joint_regressor.dtype)
        rotations, amounts = body.rig_rotations(params.pose), body.corrective_amounts(params.pose)
        to_world = self._offset.new_tensor(CAMERA_TO_GLTF)
        places = (self._offset + params.translation) * to_world
        upright = body.upright
        turned = upright @ rotations @ upright.T
        # The root turns from the upright frame to the world's, not within the former.
        turned[:, 0] = to_world[:, None] * rotations[:, 0] @ upright.T
        return RigMotion(self.rig, turned, places, amounts, self.times[part]).to("cpu", torch.float64)
