"""Anny's body with the fingers and wrists of its hands: one rig for both answers."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from i2l_meshnet.bodies.anny import BODY_BONES, AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.skinning import global_rotations

BLOCK = 1024
"""Poses that are worked out at once."""
_ENDS = {"left": ".L", "right": ".R"}
_HANDS = ("anny-hand", "anny-hand-left")


def with_hands(
    body: Body,
    params: BodyParams,
    hands: Mapping[Literal["left", "right"], tuple[str, Float[Tensor, "t k 3 3"], Bool[Tensor, "t"]]],
) -> tuple[Body, BodyParams]:
    """The body posed by its own bones and by its fingers, and parameters (T) that pose it so.

    hands: of each side the hand's body, its pose (the root turned against the camera), and in which frames it counts;
    in the others wrist and fingers stay as the body has them. Hand and body have the same bones in the same axes at
    rest, so fingers are taken over, and the wrist is turned to where the hand is. Only Anny's hands fit Anny's body:
    without any, body and parameters are returned as they are.
    """
    poses = {side: (pose, there) for side, (name, pose, there) in hands.items() if name in _HANDS}
    if not poses or not isinstance(body, AnnyBody):
        return body, params
    bones = AnnyBody.load_hand().bones[1:]
    fingers = {side: [bone[:-2] + _ENDS[side] for bone in bones] for side in poses}
    posed = AnnyBody.load([*BODY_BONES, *(bone for side in fingers for bone in fingers[side])])
    frames = len(params.pose)
    identity = torch.eye(3, dtype=params.pose.dtype).expand(frames, len(posed.bones) - len(body.bones), 3, 3)
    pose = torch.cat([params.pose, identity], 1)
    for side, (hand, there) in poses.items():
        wrist = body.bones.index(f"wrist{_ENDS[side]}")
        columns = [posed.bones.index(bone) for bone in fingers[side]]
        rows = there.nonzero()[:, 0]
        for part in rows.split(BLOCK):
            arm = global_rotations(params.pose[part], body.parents)[:, body.parents[wrist]]
            pose[part, wrist] = arm.mT @ hand[part, 0]
            pose[part[:, None], torch.tensor(columns)] = hand[part, 1:]
    return posed, BodyParams(pose, params.shape, params.translation)
