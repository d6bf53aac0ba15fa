"""From sightings to tracks: gaps bridged, one shape for each person, motion smoothed. A block of frames at a time."""

import dataclasses
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.video.motion import WIDTH, LiveSmoother, Motion, smooth_offline
from i2l_meshnet.video.smoothing import SmoothKind, interpolate_rotations
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.video.track import PersonTrack
from i2l_meshnet.video.work import Person

BLOCK = 256
"""Frames that are held in memory at once."""
BRIDGED_TRUST = 0.05
"""Weight of a bridged frame in the offline fit."""


def finish(person: Person, body: Body, ticks: Int64[np.ndarray, "f"], smooth: SmoothKind) -> None:
    """Makes a person's arrays final, in place. ticks: times of all frames of the clip."""
    times = torch.from_numpy(ticks[person.first : person.first + len(person)] / TICKS)
    _bridge(person, times)
    trust = torch.from_numpy(np.nan_to_num(person.columns["confidence"], nan=1.0)).clamp_min(BRIDGED_TRUST)
    shape = None
    if "shape" in person.columns:
        weight = (trust * torch.from_numpy(person.seen))[:, None]
        shape = (torch.from_numpy(person.columns["shape"]) * weight).sum(0) / weight.sum()
    if smooth == "offline":
        _finish_offline(person, body, times, trust, shape)
        return
    smoother = LiveSmoother(body, shape)
    for start in range(0, len(person), BLOCK):
        part = slice(start, start + BLOCK)
        motion = person.motion(part)
        if smooth == "one-euro":
            steps = torch.diff(times[part], prepend=times[max(start - 1, 0)][None]).tolist()
            motion = Motion.stack([smoother.step(motion[i], 1.0, seconds) for i, seconds in enumerate(steps)])
        elif shape is not None:
            motion = motion.with_shape(body, shape)
        person.put(part, motion)


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


def _finish_offline(
    person: Person, body: Body, times: Float[Tensor, "t"], trust: Float[Tensor, "t"], shape: Float[Tensor, "s"] | None
) -> None:
    # A frame depends on others as far as the fit of its mesh reaches, and these on others for their depth.
    reach = 3 * (WIDTH["depth"] + max(WIDTH.values()))
    kept: list[tuple[slice, Motion]] = []
    for start in range(0, len(person), BLOCK):
        part = slice(start, min(start + BLOCK, len(person)))
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
    person: Person, body: Body, camera: Camera, ticks: Int64[np.ndarray, "f"], vertices: bool = False
) -> PersonTrack:
    """The record of a finished person. vertices: whether the lixel mesh is part of it."""
    frames = np.arange(person.first, person.first + len(person))
    origin = np.zeros((len(person), 3), np.float32)
    joints = np.zeros((len(person), len(body.skeleton), 3), np.float32)
    translation = np.zeros((len(person), 3), np.float32) if "pose" in person.columns else None
    for start in range(0, len(person), BLOCK):
        part = slice(start, start + BLOCK)
        motion = person.motion(part)
        params = motion.params(body)
        mesh = motion.lixel_mesh(body) if params is None else body(params)
        origin[part], joints[part] = motion.origin.numpy(), mesh.joints.numpy()
        if params is not None and translation is not None:
            translation[part] = params.translation.numpy()
    return PersonTrack(
        body=body.name,
        joint_names=body.skeleton.joints,
        bone_names=body.bones,
        shape_names=body.shape_names,
        time=ticks[frames] / TICKS,
        frame=frames,
        focal=camera.focal.numpy(),
        center=camera.center.numpy(),
        box=person.columns["box"],
        confidence=person.columns["confidence"],
        bridged=~person.seen,
        joints=joints,
        pose=person.columns.get("pose"),
        shape=None if translation is None else np.array(person.columns["shape"][0]),
        translation=translation,
        vertices=person.columns["vertices"] if vertices else None,
        origin=origin if vertices else None,
        faces=body.faces.numpy() if vertices else None,
    )
