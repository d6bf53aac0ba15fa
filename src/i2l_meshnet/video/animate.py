"""A person of a clip as a file for animation programs, with their fingers where the body's rig has them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from i2l_meshnet.animation import write_bvh, write_glb, write_usd
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.fingers import with_hands
from i2l_meshnet.prediction.results import Side
from i2l_meshnet.video.track import HandTrack, PersonTrack

WRITERS = {"glb": write_glb, "bvh": write_bvh, "usd": write_usd}
"""By format: "glb" and "usd" have the clip's times, "bvh" begins at 0."""


def write_animation(path: Path, name: str, body: Body, track: PersonTrack) -> None:
    """Writes a track with body parameters in a format of `WRITERS`."""
    if track.params is None:
        raise ValueError("a track without body parameters cannot be animated")
    body, params = animated(body, track.params, track.hands)
    WRITERS[name](path, body, params, torch.from_numpy(track.time))


def animated(body: Body, params: BodyParams, hands: Mapping[Side, HandTrack]) -> tuple[Body, BodyParams]:
    """What moves a rig: body and parameters as they are, or those of a body with fingers where hands were seen."""
    poses: dict[Side, tuple[str, Tensor, Tensor]] = {
        side: (hand.body, torch.from_numpy(hand.pose), torch.from_numpy(hand.present))
        for side, hand in hands.items()
        if hand.pose is not None
    }
    return with_hands(body, params, poses)
