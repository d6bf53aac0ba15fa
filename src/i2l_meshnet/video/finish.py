"""From sightings to tracks: gaps bridged, one shape for each person, motion smoothed. A block of frames at a time."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.hands import WRISTS
from i2l_meshnet.prediction.results import Side
from i2l_meshnet.video.motion import WIDTH, Motion, MotionFilter, smooth_offline
from i2l_meshnet.video.smoothing import SmoothKind, interpolate_rotations
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.video.track import HandTrack, PersonTrack
from i2l_meshnet.video.work import Person

BLOCK = 256
"""Frames that are held in memory at once."""
BRIDGED_TRUST = 0.05
"""Weight of a bridged frame in the offline fit."""


def finish(person: Person, body: Body, ticks: Int64[np.ndarray, "f"], smooth: SmoothKind) -> None:
    """Makes a person's arrays final, in place. ticks: times of all frames of the clip.

    Adds the columns origin (of the lixel mesh's vertices), joints and, for a body with parameters, translation.
    """
    _steady(person, body, ticks, smooth, _mean_shape([person]))
    _pose(person, body)


def finish_hands(
    spells: Sequence[Person],
    hand: Body,
    side: Side,
    owner: Person,
    body: Body,
    ticks: Int64[np.ndarray, "f"],
    smooth: SmoothKind,
) -> None:
    """The same for all spells of one hand of a finished person: steady, and as far away as the body's wrist."""
    shape, wrist = _mean_shape(spells), body.skeleton.index(WRISTS[side])
    for spell in spells:
        _steady(spell, hand, ticks, smooth, shape)
        for part in _blocks(spell):
            near = slice(part.start + spell.first - owner.first, part.stop + spell.first - owner.first)
            depth = owner.motion(near).lixel_mesh(body).joints[:, wrist, 2:]
            spell.put(part, spell.motion(part).at_depth(depth))
        _pose(spell, hand)


def _mean_shape(people: Sequence[Person]) -> Float[Tensor, "s"] | None:
    """The one shape of all that was seen, weighted by confidence."""
    if not people or "shape" not in people[0].columns:
        return None
    weight = torch.cat([_trust(person) * torch.from_numpy(person.seen) for person in people])[:, None]
    shapes = torch.cat([torch.from_numpy(person.columns["shape"][:]) for person in people])
    return (shapes * weight).sum(0) / weight.sum()


def _trust(person: Person) -> Float[Tensor, "t"]:
    return torch.from_numpy(np.nan_to_num(person.columns["confidence"][:], nan=1.0)).clamp_min(BRIDGED_TRUST)


def _blocks(person: Person) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, len(person))) for start in range(0, len(person), BLOCK))


def _steady(
    person: Person, body: Body, ticks: Int64[np.ndarray, "f"], smooth: SmoothKind, shape: Float[Tensor, "s"] | None
) -> None:
    times = torch.from_numpy(ticks[person.first : person.first + len(person)] / TICKS)
    _bridge(person, times)
    if smooth == "offline":
        _steady_offline(person, body, times, shape)
        return
    motion_filter = MotionFilter()
    for part in _blocks(person):
        motion = person.motion(part)
        if shape is not None:
            motion = motion.with_shape(body, shape)
        if smooth == "one-euro":
            steps = torch.diff(times[part], prepend=times[max(part.start - 1, 0)][None]).tolist()
            motion = Motion.stack([motion_filter.step(motion[i], seconds) for i, seconds in enumerate(steps)])
        person.put(part, motion)


def _pose(person: Person, body: Body) -> None:
    origin = person.add("origin", (3,), np.float32)
    joints = person.add("joints", (len(body.skeleton), 3), np.float32)
    translation = person.add("translation", (3,), np.float32) if "pose" in person.columns else None
    for part in _blocks(person):
        motion = person.motion(part)
        params = motion.params(body)
        mesh = motion.lixel_mesh(body) if params is None else body(params)
        origin[part], joints[part] = motion.origin.numpy(), mesh.joints.numpy()
        if params is not None and translation is not None:
            translation[part] = params.translation.numpy()


def _bridge(person: Person, times: Float[Tensor, "t"]) -> None:
    """Fills the frames in which a person was not seen: between the sightings before and behind them."""
    gaps = np.flatnonzero(np.diff(np.flatnonzero(person.seen)) > 1)
    sightings = np.flatnonzero(person.seen)
    for gap in gaps.tolist():
        before, behind = int(sightings[gap]), int(sightings[gap + 1])
        part = slice(before + 1, behind)
        steps = ((times[part] - times[before]) / (times[behind] - times[before])).float()
        person.put(part, _between(person.motion(slice(before, behind + 1)), steps))
        share = steps.numpy()[:, None]
        boxes = person.columns["box"]
        boxes[part] = (1 - share) * boxes[before] + share * boxes[behind]


def _between(motion: Motion, steps: Float[Tensor, "n"]) -> Motion:
    """Motions at `steps` (0 to 1) from the first to the last frame of a motion."""
    start, end = motion[0], motion[-1]
    values: dict[str, Any] = {}
    for field in dataclasses.fields(motion):
        one, other = getattr(start, field.name), getattr(end, field.name)
        if one is None or other is None:
            continue
        if field.name == "pose":
            values["pose"] = interpolate_rotations(one, other, steps)
        else:
            share = steps.reshape(-1, *[1] * one.ndim)
            values[field.name] = (1 - share) * one + share * other
    return Motion(**values)


def _steady_offline(person: Person, body: Body, times: Float[Tensor, "t"], shape: Float[Tensor, "s"] | None) -> None:
    trust = _trust(person)
    # A frame depends on others as far as the fit of its mesh reaches, and these on others for their depth.
    reach = 3 * (WIDTH["depth"] + max(WIDTH.values()))
    kept: list[tuple[slice, Motion]] = []
    for part in _blocks(person):
        low = int(torch.searchsorted(times, times[part.start] - reach))
        high = int(torch.searchsorted(times, times[part.stop - 1] + reach, right=True))
        near = slice(low, high)
        motion = person.motion(near)
        if shape is not None:
            motion = motion.with_shape(body, shape)
        smooth = smooth_offline(motion, times[near], trust[near], slice(part.start - low, part.stop - low))
        # Blocks still to come look back at raw frames, so a block is written when none can any more.
        kept.append((part, smooth))
        while kept and (part.stop == len(person) or times[kept[0][0].stop - 1] < times[part.stop] - reach):
            person.put(*kept.pop(0))


def to_track(
    person: Person,
    body: Body,
    camera: Camera,
    ticks: Int64[np.ndarray, "f"],
    vertices: bool = False,
    hands: Mapping[Side, tuple[Body, list[Person]]] | None = None,
) -> PersonTrack:
    """The record of a finished person; its long arrays are maps of files. vertices: whether the lixel mesh is part.

    hands: body and finished spells of each.
    """
    frames = np.arange(person.first, person.first + len(person))
    whole = {name: column.map() for name, column in person.columns.items() if name != "vertices" or vertices}
    return PersonTrack(
        body=body.name,
        joint_names=body.skeleton.joints,
        bone_names=body.bones,
        shape_names=body.shape_names,
        time=ticks[frames] / TICKS,
        frame=frames,
        focal=camera.focal.numpy(),
        center=camera.center.numpy(),
        box=whole["box"],
        confidence=whole["confidence"],
        bridged=~person.seen,
        joints=whole["joints"],
        pose=whole.get("pose"),
        shape=person.columns["shape"][0] if "shape" in whole else None,
        translation=whole.get("translation"),
        vertices=whole.get("vertices"),
        origin=whole["origin"] if vertices else None,
        faces=body.faces.numpy() if vertices else None,
        hands={side: _hand_track(person, side, *hand) for side, hand in (hands or {}).items() if hand[1]},
    )


def _hand_track(owner: Person, side: Side, hand: Body, spells: Sequence[Person]) -> HandTrack:
    """A hand over its owner's frames; where it was not followed, rows are at rest and nowhere."""
    present, bridged = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    wide = {"confidence": (), "joints": (len(hand.skeleton), 3)}
    if "pose" in spells[0].columns:
        wide |= {"pose": (len(hand.bones), 3, 3), "translation": (3,)}
    columns = {name: owner.add(f"{side}_{name}", shape, np.float32) for name, shape in wide.items()}
    absent = {"confidence": 0.0, "joints": np.nan, "translation": np.nan, "pose": np.eye(3, dtype=np.float32)}
    for name, column in columns.items():
        for part in _blocks(owner):
            column[part] = absent[name]
    for spell in spells:
        shift = spell.first - owner.first
        present[shift : shift + len(spell)] = True
        bridged[shift : shift + len(spell)] = ~spell.seen
        for name, column in columns.items():
            for part in _blocks(spell):
                column[part.start + shift : part.stop + shift] = spell.columns[name][part]
    whole = {name: column.map() for name, column in columns.items()}
    return HandTrack(
        body=hand.name,
        joint_names=hand.skeleton.joints,
        bone_names=hand.bones,
        present=present,
        bridged=bridged,
        confidence=whole["confidence"],
        joints=whole["joints"],
        pose=whole.get("pose"),
        shape=spells[0].columns["shape"][0] if "shape" in spells[0].columns else None,
        translation=whole.get("translation"),
    )
