"""Anny's body combined with the wrists and fingers of its hands, in one rig."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from i2l_meshnet.bodies.anny import BODY_BONES, AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.skinning import global_rotations

BLOCK = 1024
"""Number of poses per batch."""
_SUFFIXES = {"left": ".L", "right": ".R"}
_HANDS = ("anny-hand", "anny-hand-left")


def with_hands(
    body: Body,
    params: BodyParams,
    hands: Mapping[Literal["left", "right"], tuple[str, Float[Tensor, "t k 3 3"], Bool[Tensor, "t"]]],
) -> tuple[Body, BodyParams]:
    """Add the poses of hands to the poses (T) of a body. Returns a body with finger bones, and its parameters.

    hands: for each side, the name of the hand's body, its pose (root rotation relative to the camera), and the frames
    in which it is used. In other frames, wrist and fingers keep the body's pose. The bones of hand and body have the
    same axes at rest, so finger rotations are copied; the wrist gets the rotation that gives the hand its orientation.
    Without hands of Anny, or for another body, the arguments are returned unchanged.
    """
    poses = {side: (pose, used) for side, (name, pose, used) in hands.items() if name in _HANDS}
    if not poses or not isinstance(body, AnnyBody):
        return body, params
    bones = AnnyBody.load_hand().bones[1:]
    fingers = {side: [bone[:-2] + _SUFFIXES[side] for bone in bones] for side in poses}
    posed = AnnyBody.load([*BODY_BONES, *(bone for side in fingers for bone in fingers[side])])
    frames = len(params.pose)
    identity = torch.eye(3, dtype=params.pose.dtype).expand(frames, len(posed.bones) - len(body.bones), 3, 3)
    pose = torch.cat([params.pose, identity], 1)
    for side, (hand, used) in poses.items():
        wrist = body.bones.index(f"wrist{_SUFFIXES[side]}")
        columns = [posed.bones.index(bone) for bone in fingers[side]]
        rows = used.nonzero()[:, 0]
        for part in rows.split(BLOCK):
            arm = global_rotations(params.pose[part], body.parents)[:, body.parents[wrist]]
            pose[part, wrist] = arm.mT @ hand[part, 0]
            pose[part[:, None], torch.tensor(columns)] = hand[part, 1:]
    return posed, BodyParams(pose, params.shape, params.translation)
