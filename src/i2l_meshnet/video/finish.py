"""From followed people to tracks: bridge gaps, use one shape per person, smooth the motion. Works block by block."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.rotations import interpolate_rotations
from i2l_meshnet.prediction.hands import WRISTS
from i2l_meshnet.prediction.results import Side
from i2l_meshnet.video.followed import FollowedPerson
from i2l_meshnet.video.motion import WIDTH, Motion, MotionFilter, smooth_offline
from i2l_meshnet.video.smoothing import SmoothKind
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.video.track import HandTrack, PersonTrack


def finish(person: FollowedPerson, body: Body, ticks: Int64[np.ndarray, "f"], smooth: SmoothKind) -> None:
    """Bridge, smooth and complete the arrays of a person in place. ticks: times of all frames of the clip."""
    _smooth(person, body, ticks, smooth, _mean_shape([person]))
    _complete(person, body)


def finish_hands(
    spells: Sequence[FollowedPerson],
    hand: Body,
    side: Side,
    owner: FollowedPerson,
    body: Body,
    ticks: Int64[np.ndarray, "f"],
    smooth: SmoothKind,
) -> None:
    """Do the same for all spells of one hand of a finished person. The depth is that of the body's wrist."""
    shape, wrist = _mean_shape(spells), body.skeleton.index(WRISTS[side])
    for spell in spells:
        _smooth(spell, hand, ticks, smooth, shape)
        for part in spell.blocks():
            shift = spell.first - owner.first
            depth = owner.motion(slice(part.start + shift, part.stop + shift)).lixel_mesh(body).joints[:, wrist, 2:]
            spell.put(part, spell.motion(part).at_depth(depth))
        _complete(spell, hand)


def _mean_shape(people: Sequence[FollowedPerson]) -> Float[Tensor, "s"] | None:
    """The mean of the predicted shapes, weighted by confidence; None for a network without parameters."""
    if not people or "shape" not in people[0].columns:
        return None
    weight = torch.cat([person.trust * torch.from_numpy(person.seen) for person in people])[:, None]
    shapes = torch.cat([torch.from_numpy(person.columns["shape"]) for person in people])
    return (shapes * weight).sum(0) / weight.sum()


def _smooth(
    person: FollowedPerson,
    body: Body,
    ticks: Int64[np.ndarray, "f"],
    smooth: SmoothKind,
    shape: Float[Tensor, "s"] | None,
) -> None:
    """Bridge the gaps, use one shape for all frames, and smooth the motion."""
    times = torch.from_numpy(ticks[person.first : person.first + len(person)] / TICKS)
    _bridge(person, times)
    if smooth == "offline":
        _smooth_offline(person, body, times, shape)
        return
    motion_filter = MotionFilter()
    for part in person.blocks():
        motion = person.motion(part)
        if shape is not None:
            motion = motion.with_shape(body, shape)
        if smooth == "one-euro":
            steps = torch.diff(times[part], prepend=times[max(part.start - 1, 0)][None]).tolist()
            motion = Motion.stack([motion_filter.step(motion[i], seconds) for i, seconds in enumerate(steps)])
        person.put(part, motion)


def _smooth_offline(
    person: FollowedPerson, body: Body, times: Float[Tensor, "t"], shape: Float[Tensor, "s"] | None
) -> None:
    trust = person.trust
    # The fit of a frame uses frames within three widths, and their depths use frames within three widths of these.
    reach = 3 * (WIDTH["depth"] + max(WIDTH.values()))
    waiting: list[tuple[slice, Motion]] = []
    for part in person.blocks():
        low = int(torch.searchsorted(times, times[part.start] - reach))
        high = int(torch.searchsorted(times, times[part.stop - 1] + reach, right=True))
        motion = person.motion(slice(low, high))
        if shape is not None:
            motion = motion.with_shape(body, shape)
        inner = slice(part.start - low, part.stop - low)
        waiting.append((part, smooth_offline(motion, times[low:high], trust[low:high], inner)))
        # Later blocks read earlier raw frames, so a block is written when no later block reads it.
        while waiting and (part.stop == len(person) or times[waiting[0][0].stop - 1] < times[part.stop] - reach):
            person.put(*waiting.pop(0))


def _complete(person: FollowedPerson, body: Body) -> None:
    """Fill the columns origin, joints and translation from the final motion."""
    for part in person.blocks():
        motion = person.motion(part)
        params = motion.params(body)
        mesh = motion.lixel_mesh(body) if params is None else body(params)
        person.columns["origin"][part], person.columns["joints"][part] = motion.origin.numpy(), mesh.joints.numpy()
        if params is not None:
            person.columns["translation"][part] = params.translation.numpy()


def _bridge(person: FollowedPerson, times: Float[Tensor, "t"]) -> None:
    """Interpolate the frames in which a person was not seen."""
    sightings = np.flatnonzero(person.seen)
    for gap in np.flatnonzero(np.diff(sightings) > 1).tolist():
        before, after = int(sightings[gap]), int(sightings[gap + 1])
        part = slice(before + 1, after)
        steps = ((times[part] - times[before]) / (times[after] - times[before])).float()
        person.put(part, _between(person.motion(slice(before, after + 1)), steps))
        share, boxes = steps.numpy()[:, None], person.columns["box"]
        boxes[part] = (1 - share) * boxes[before] + share * boxes[after]


def _between(motion: Motion, steps: Float[Tensor, "n"]) -> Motion:
    """Interpolate between the first and the last frame of a motion. steps: 0 to 1."""
    start, end = motion[0], motion[-1]
    values: dict[str, Any] = {}
    for field in dataclasses.fields(motion):
        one, other = getattr(start, field.name), getattr(end, field.name)
        if one is None or other is None:
            continue
        if field.name == "pose":
            values["pose"] = interpolate_rotations(one, other, steps[:, None, None])
        else:
            share = steps.reshape(-1, *[1] * one.ndim)
            values[field.name] = (1 - share) * one + share * other
    return Motion(**values)


def to_track(
    person: FollowedPerson,
    body: Body,
    camera: Camera,
    ticks: Int64[np.ndarray, "f"],
    vertices: bool = False,
    hands: Mapping[Side, tuple[Body, list[FollowedPerson]]] | None = None,
) -> PersonTrack:
    """The track of a finished person. Its long arrays are on disk. vertices: whether to add the lixel mesh.

    hands: for each side, the body of the hand and its finished spells.
    """
    columns, frames = person.columns, np.arange(person.first, person.first + len(person))
    return PersonTrack(
        body=body.name,
        joint_names=body.skeleton.joints,
        bone_names=body.bones,
        shape_names=body.shape_names,
        time=ticks[frames] / TICKS,
        frame=frames,
        focal=camera.focal.numpy(),
        center=camera.center.numpy(),
        box=columns["box"],
        confidence=columns["confidence"],
        bridged=~person.seen,
        joints=columns["joints"],
        pose=columns.get("pose"),
        shape=_shape(person),
        translation=columns.get("translation"),
        vertices=columns["vertices"] if vertices else None,
        origin=columns["origin"] if vertices else None,
        faces=body.faces.numpy() if vertices else None,
        hands={side: _hand_track(person, *hand) for side, hand in (hands or {}).items() if hand[1]},
    )


def _hand_track(owner: FollowedPerson, hand: Body, spells: Sequence[FollowedPerson]) -> HandTrack:
    """The track of a hand in the frames of its owner."""
    present, bridged = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    absent = {"confidence": 0.0, "joints": np.nan, "translation": np.nan, "pose": np.eye(3)}
    columns: dict[str, np.ndarray] = {}
    for name in absent.keys() & spells[0].columns.keys():
        columns[name] = np.empty((len(owner), *spells[0].columns[name].shape[1:]), np.float32)
        columns[name][:] = absent[name]
    for spell in spells:
        part = slice(spell.first - owner.first, spell.first - owner.first + len(spell))
        present[part], bridged[part] = True, ~spell.seen
        for name, column in columns.items():
            column[part] = spell.columns[name]
    return HandTrack(
        body=hand.name,
        joint_names=hand.skeleton.joints,
        bone_names=hand.bones,
        present=present,
        bridged=bridged,
        confidence=columns["confidence"],
        joints=columns["joints"],
        pose=columns.get("pose"),
        shape=_shape(spells[0]),
        translation=columns.get("translation"),
    )


def _shape(person: FollowedPerson) -> Float[np.ndarray, "s"] | None:
    return person.columns["shape"][0] if "shape" in person.columns else None
