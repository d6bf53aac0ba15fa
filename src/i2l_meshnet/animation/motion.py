"""The rig of a body and its motion, in the frame of animation programs."""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.errors import InputError
from i2l_meshnet.tensors import TensorDataclass

BLOCK = 256
"""Maximum number of poses in memory."""


@dataclasses.dataclass(frozen=True)
class RigMotion(TensorDataclass):
    """A rig and T poses of it. Metres and seconds, float64 on the CPU.

    rig: in the rest pose it is upright: x to the left of the body, y up, z to its front. rotations: of every bone
    relative to its parent. The rotation of the root is relative to the world: the camera frame with the axes of glTF (x
    right, y up, z towards the viewer). positions: of the root bone in the world. amounts: weights of the rig's
    correctives.
    """

    rig: Rig
    rotations: Float[Tensor, "t n 3 3"]
    positions: Float[Tensor, "t 3"]
    amounts: Float[Tensor, "t c"]
    times: Float[Tensor, "t"]


class RigClip:
    """Body parameters in the camera frame as the motion of a rig. A rig has one shape: the mean.

    Poses are computed when they are needed, so that the poses of a long clip are never in memory together.
    """

    def __init__(self, body: Body, params: BodyParams, times: Float[Tensor, "t"], full: bool = False) -> None:
        """full: use the rig of the full mesh, if the body has one.

        Raises InputError unless each pose has a time (seconds), and the times are increasing and not negative.
        """
        times = times.detach().double().cpu()
        if params.pose.ndim != 4 or len(params.pose) != len(times) or not len(times):
            raise InputError(f"{len(times)} times do not fit poses of shape {tuple(params.pose.shape)}")
        if not (times[0] >= 0 and (times.diff() > 0).all() and times.isfinite().all()):
            raise InputError("the times of a clip must be increasing seconds, not negative")
        self.times, self._body, self._params = times, body, params
        with torch.no_grad():
            shape = params.shape.mean(0).to(body.joint_regressor.device, body.joint_regressor.dtype)
            rig = body.full_rig(shape) if full and isinstance(body, AnnyBody) else body.rig(shape)
            self._offset = rig.offsets[0]
            self.rig = rig.in_axes(body.upright).to("cpu", torch.float64)

    def __len__(self) -> int:
        return len(self.times)

    def parts(self) -> Iterator[slice]:
        """The poses in blocks that fit into memory."""
        return (slice(start, start + BLOCK) for start in range(0, len(self), BLOCK))

    @torch.no_grad()
    def motion(self, part: slice = slice(None)) -> RigMotion:
        """The poses of a part of the clip."""
        body = self._body
        params = self._params[part].to(body.joint_regressor.device, body.joint_regressor.dtype)
        rotations, amounts = body.rig_rotations(params.pose), body.corrective_amounts(params.pose)
        to_world = self._offset.new_tensor(CAMERA_TO_GLTF)
        positions = (self._offset + params.translation) * to_world
        upright = body.upright
        local = upright @ rotations @ upright.T
        # The root rotates from the upright frame to the world.
        local[:, 0] = to_world[:, None] * rotations[:, 0] @ upright.T
        return RigMotion(self.rig, local, positions, amounts, self.times[part]).to("cpu", torch.float64)
