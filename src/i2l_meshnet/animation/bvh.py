"""Write motion as BVH: the rest pose of the skeleton, and Euler angles for every frame.

Source of the format: M. Meredith and S. Maddock, "Motion Capture File Formats Explained" (2001).
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.animation.motion import BLOCK, RigClip, RigMotion
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.geometry.rotations import interpolate_rotations
from i2l_meshnet.io import atomic_path

STILL_FRAME_TIME = 1 / 30
"""Frame time of a file with one frame, seconds."""


def write_bvh(path: Path, body: Body, params: BodyParams, times: Float[Tensor, "t"]) -> None:
    """Write the skeleton of the mean shape and its motion as BVH.

    Units are metres and degrees. The frame is the camera frame with the axes of glTF: x right, y up, z towards the
    viewer. The rest pose is upright and faces z. A BVH file starts at 0 and has one frame time, so motion with uneven
    times is resampled at its median rate. Raises InputError for times that do not increase, FileError if the file
    cannot be written.
    """
    from scipy.spatial.transform import Rotation  # takes half a second

    clip = RigClip(body, params, times)
    hierarchy, order = _joint(clip.rig)
    even = _even_times(clip.times)
    frame_time = float(even[1] - even[0]) if len(even) > 1 else STILL_FRAME_TIME
    head = ["HIERARCHY", *hierarchy, "MOTION", f"Frames: {len(even)}", f"Frame Time: {frame_time:.8f}"]
    last: Float[np.ndarray, "1 a"] | None = None
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write("\n".join(head) + "\n")
        for start in range(0, len(even), BLOCK):
            motion = _at(clip, even[start : start + BLOCK])
            rotations = motion.rotations[:, order].flatten(0, 1).numpy()
            with warnings.catch_warnings():
                # In gimbal lock, which lying people can cause, several angles are equal, and any of them is correct.
                warnings.simplefilter("ignore", UserWarning)
                angles = Rotation.from_matrix(rotations).as_euler("ZXY", degrees=True).reshape(len(motion.times), -1)
            # Angles continue beyond ±180°, because programs interpolate between frames.
            before = angles[:1] if last is None else last
            angles = np.unwrap(np.concatenate([before, angles]), period=360, axis=0)[1:]
            last = angles[-1:]
            for position, angle in zip(motion.positions.numpy(), angles, strict=True):
                values = [*(f"{value:.6f}" for value in position), *(f"{value:.5f}" for value in angle)]
                file.write(" ".join(values) + "\n")


def _even_times(times: Float[Tensor, "t"]) -> Float[Tensor, "e"]:
    """Evenly spaced times from the first to the last, at the median rate."""
    if len(times) == 1:
        return times
    frames = int(((times[-1] - times[0]) / times.diff().median()).round()) + 1
    return torch.linspace(float(times[0]), float(times[-1]), frames, dtype=times.dtype)


def _at(clip: RigClip, even: Float[Tensor, "e"]) -> RigMotion:
    """The motion at other times. Rotations are interpolated along the shortest arc, positions linearly."""
    times = clip.times
    if len(times) == 1:
        return clip.motion()
    after = torch.searchsorted(times, even).clamp(1, len(times) - 1)
    share = ((even - times[after - 1]) / (times[after] - times[after - 1])).clamp(0, 1)
    low = int(after[0]) - 1
    keys, after = clip.motion(slice(low, int(after[-1]) + 1)), after - low

    def between(values: Tensor) -> Tensor:
        return torch.lerp(values[after - 1], values[after], share[:, None])

    rotations = interpolate_rotations(keys.rotations[after - 1], keys.rotations[after], share[:, None, None])
    return RigMotion(clip.rig, rotations, between(keys.positions), between(keys.amounts), even)


def _joint(rig: Rig, bone: int = 0, depth: int = 0) -> tuple[list[str], list[int]]:
    """The lines of a bone and its descendants, and these bones in the order of the lines and channels.

    A bone without children gets the length of its parent.
    """
    tab = "\t" * depth
    offset = "OFFSET " + " ".join(f"{value:.6f}" for value in rig.offsets[bone].tolist())
    channels = "CHANNELS 6 Xposition Yposition Zposition" if bone == 0 else "CHANNELS 3"
    lines = [f"{tab}{'JOINT' if bone else 'ROOT'} {rig.bones[bone]}", f"{tab}{{"]
    lines += [f"{tab}\t{offset if bone else 'OFFSET 0 0 0'}", f"{tab}\t{channels} Zrotation Xrotation Yrotation"]
    children = [child for child, parent in enumerate(rig.parents) if parent == bone]
    order = [bone]
    for child in children:
        below, bones = _joint(rig, child, depth + 1)
        lines, order = lines + below, order + bones
    if not children:
        lines += [f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\t{offset}", f"{tab}\t}}"]
    return [*lines, f"{tab}}}"], order
