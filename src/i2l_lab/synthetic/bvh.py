"""Motion capture in BVH files: reading them, and the stick figure of each frame.

Source of the format: M. Meredith and S. Maddock, "Motion Capture File Formats Explained" (2001).
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from i2l_lab.synthetic.figure import SEGMENTS, rotation_between
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import read_bytes, reading

JOINT_NAMES: dict[str, tuple[str, ...]] = {
    "hips": ("hips", "hip", "pelvis"),
    "chest": ("spine3", "spine2", "spine1", "chest2", "chest", "spine"),
    "head": ("head",),
    "upper_arm": ("arm", "shldr", "shoulder"),
    "forearm": ("forearm", "elbow"),
    "hand": ("hand", "wrist"),
    "thigh": ("upleg", "thigh", "hip"),
    "shin": ("leg", "shin", "knee"),
    "foot": ("foot", "ankle"),
}
"""Names of each joint in common rigs, in order of preference. Names of limbs have a prefix for the side."""

MAX_JOINTS, MAX_ROTATIONS = 1000, 10**7
"""Maximum joints (with end sites) of a file, and maximum joints times frames (72 bytes each)."""

SIDES = {"L": ("left", "l"), "R": ("right", "r")}


@dataclasses.dataclass(frozen=True)
class Recording:
    """A skeleton and its motion, in the file's axes and units.

    parents: -1 for the root; a parent is before its children. offsets: from the parent. rotations: global, per frame.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float[np.ndarray, "j 3"]
    rotations: Float[np.ndarray, "t j 3 3"]
    frame_time: float

    def rest_positions(self) -> Float[np.ndarray, "j 3"]:
        """Joint positions with all rotations zero and the root at the origin."""
        positions = np.zeros_like(self.offsets)
        for joint, parent in enumerate(self.parents):
            positions[joint] = positions[parent] + self.offsets[joint] if parent >= 0 else 0.0
        return positions


def read_bvh(path: Path) -> Recording:
    """Read a BVH file. Raise FileError if it is damaged."""
    with reading(path, "a complete BVH file"):
        header, _, motion = read_bytes(path).decode("utf-8", "replace").partition("MOTION")
        return _parse(header.split(), motion)


def _parse(words: list[str], motion: str) -> Recording:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    stack: list[int] = []
    pending = -1
    i = 0
    while i < len(words):
        word = words[i]
        if word in ("ROOT", "JOINT", "End"):
            # An end site is a joint without channels, named after the joint that it ends.
            names.append(f"{names[stack[-1]]}_end" if word == "End" else words[i + 1])
            parents.append(stack[-1] if stack else -1)
            offsets.append([0.0, 0.0, 0.0])
            channels.append([])
            pending = len(names) - 1
            i += 1
        elif word == "{":
            stack.append(pending)
        elif word == "}":
            stack.pop()
        elif word == "OFFSET":
            offsets[stack[-1]] = [float(value) for value in words[i + 1 : i + 4]]
            i += 3
        elif word == "CHANNELS":
            count = int(words[i + 1])
            channels[stack[-1]] = [channel.lower() for channel in words[i + 2 : i + 2 + count]]
            i += 1 + count
        i += 1
    frame_time = re.search(r"Frame Time:\s*(\S+)", motion)
    if not names or frame_time is None:
        raise ValueError("no hierarchy or no frame time")
    width = sum(len(joint) for joint in channels)
    values = np.array(motion[frame_time.end() :].split(), np.float64)
    if width == 0 or len(values) == 0 or len(values) % width:
        raise ValueError(f"{len(values)} values are no whole number of frames of {width} values")
    values = values.reshape(-1, width)
    if len(names) > MAX_JOINTS or len(values) * len(names) > MAX_ROTATIONS:
        raise ValueError(f"{len(values)} frames of {len(names)} joints are too many")
    if not (np.isfinite(values).all() and np.isfinite(offsets).all()):
        raise ValueError("it contains values that are not finite")
    rotations = np.empty((len(values), len(names), 3, 3))
    column = 0
    for joint, (parent, order) in enumerate(zip(parents, channels, strict=True)):
        columns = [column + k for k, channel in enumerate(order) if channel.endswith("rotation")]
        axes = "".join(channel[0].upper() for channel in order if channel.endswith("rotation"))
        local = np.eye(3) if not axes else Rotation.from_euler(axes, values[:, columns], degrees=True).as_matrix()
        rotations[:, joint] = local if parent < 0 else rotations[:, parent] @ local
        column += len(order)
    return Recording(tuple(names), tuple(parents), np.array(offsets), rotations, float(frame_time.group(1)))


def figures(recording: Recording) -> Float[np.ndarray, "t 15 3 3"]:
    """The stick figure (see `figure.SEGMENTS`) of every frame, with the recorded heading.

    Limbs have the directions of the recorded bones, and their twist relative to the file's rest pose. The trunk has the
    recorded rotations. The rest pose must be an upright person with arms in any position; any up axis works.
    Raise FileError if joints of a person are missing or the rest pose is a different one.
    """
    joint = _find_joints(recording.names)
    rest = recording.rest_positions()
    head, hips = rest[joint["head"]], rest[joint["hips"]]
    feet = (rest[joint["L_foot"]] + rest[joint["R_foot"]]) / 2
    up_rest = _main_axis(head - feet)
    left = rest[joint["L_thigh"]] - rest[joint["R_thigh"]]
    left = left - (left @ up_rest) * up_rest
    upright = (head - hips) @ up_rest > 0.8 * np.linalg.norm(head - hips)
    standing = (hips - feet) @ up_rest > 0.8 * np.linalg.norm(hips - feet)
    if not (upright and standing and np.linalg.norm(left) > 0):
        raise FileError("the rest pose of this skeleton is not an upright person")
    left /= np.linalg.norm(left)
    # Rows: left, back and up of the rest pose, which are Anny's x, y and z.
    to_anny = np.stack([left, np.cross(up_rest, left), up_rest])
    # The recording can have another up axis: the axis along which the head is above the hips on average.
    up_world = _main_axis((recording.rotations[:, joint["hips"]] @ (head - hips)).mean(0))
    world_to_anny = rotation_between(up_world, np.array([0.0, 0.0, 1.0]))

    def rotation(name: str) -> np.ndarray:
        return world_to_anny @ recording.rotations[:, joint[name]] @ to_anny.T

    def direction(name: str, end: int) -> np.ndarray:
        return to_anny @ (rest[end] - rest[joint[name]])

    down = np.array([0.0, 0.0, -1.0])
    result = {"root": rotation("hips"), "chest": rotation("chest"), "head": rotation("head")}
    for side in "LR":
        for limb, child in (("upper_arm", "forearm"), ("forearm", "hand"), ("thigh", "shin"), ("shin", "foot")):
            name = f"{side}_{limb}"
            result[name] = rotation(name) @ rotation_between(down, direction(name, joint[f"{side}_{child}"]))
        # The hand continues the forearm at rest; the foot is flat at rest.
        along = direction(f"{side}_forearm", joint[f"{side}_hand"])
        result[f"{side}_hand"] = rotation(f"{side}_hand") @ rotation_between(down, along)
        result[f"{side}_foot"] = rotation(f"{side}_foot")
    return np.stack([result[name] for name in SEGMENTS], 1)


def _find_joints(names: tuple[str, ...]) -> dict[str, int]:
    """Indices of a person's joints among a file's names. Raise FileError if one is missing."""
    plain = [re.sub(r"[^a-z0-9]", "", name.split(":")[-1].lower()) for name in names]
    found: dict[str, int] = {}
    for joint, candidates in JOINT_NAMES.items():
        sided = joint not in ("hips", "chest", "head")
        for side, prefixes in SIDES.items() if sided else (("", ("",)),):
            spelled = [prefix + name for name in candidates for prefix in prefixes]
            match = next((plain.index(name) for name in spelled if name in plain), None)
            if match is None:
                raise FileError(f"the skeleton has no joint for {side + ' ' if side else ''}{joint}")
            found[f"{side}_{joint}" if side else joint] = match
    return found


def _main_axis(direction: np.ndarray) -> np.ndarray:
    """The coordinate axis, with its sign, nearest to a direction."""
    axis = np.zeros(3)
    longest = int(np.abs(direction).argmax())
    axis[longest] = np.sign(direction[longest])
    return axis
