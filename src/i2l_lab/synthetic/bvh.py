"""Motion capture in BVH files: reading, and the stick figure in each frame.

Source of the format: M. Meredith and S. Maddock, "Motion Capture File Formats Explained" (2001).
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from i2l_lab.synthetic.figure import SEGMENTS, turn_between
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import read_bytes

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
"""What a joint is called in the rigs in use, the first that a file has; limbs carry a side before the name."""

MOST_JOINTS, MOST_ROTATIONS = 1000, 10**7
"""Of a file: its joints and end sites; those times its frames (72 bytes each)."""

SIDES = {"L": ("left", "l"), "R": ("right", "r")}


@dataclasses.dataclass(frozen=True)
class Motion:
    """A skeleton and its motion, in the file's own axes and units.

    parents: -1 for the root; parents come first. offsets: from the parent. rotations: global, per frame.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float[np.ndarray, "j 3"]
    rotations: Float[np.ndarray, "t j 3 3"]
    frame_time: float

    def rest_places(self) -> Float[np.ndarray, "j 3"]:
        """Joint places with all rotations zero and the root at the origin."""
        places = np.zeros_like(self.offsets)
        for joint, parent in enumerate(self.parents):
            places[joint] = places[parent] + self.offsets[joint] if parent >= 0 else 0.0
        return places


def read_bvh(path: Path) -> Motion:
    """Reads a BVH file. Raises FileError where it is not one."""
    try:
        header, _, motion = read_bytes(path).decode("utf-8", "replace").partition("MOTION")
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise FileError(f"cannot read {path}: {error}") from error
    try:
        return _parse(header.split(), motion)
    except (ValueError, IndexError, OverflowError) as error:
        raise FileError(f"{path} is not a whole BVH file ({error})") from error


def _parse(words: list[str], motion: str) -> Motion:
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
        raise ValueError(f"{len(values)} values do not fill frames of {width}")
    values = values.reshape(-1, width)
    if len(names) > MOST_JOINTS or len(values) * len(names) > MOST_ROTATIONS:
        raise ValueError(f"{len(values)} frames of {len(names)} joints are too many")
    if not (np.isfinite(values).all() and np.isfinite(offsets).all()):
        raise ValueError("it holds values that are no numbers")
    rotations = np.empty((len(values), len(names), 3, 3))
    column = 0
    for joint, (parent, order) in enumerate(zip(parents, channels, strict=True)):
        columns = [column + k for k, channel in enumerate(order) if channel.endswith("rotation")]
        axes = "".join(channel[0].upper() for channel in order if channel.endswith("rotation"))
        local = np.eye(3) if not axes else Rotation.from_euler(axes, values[:, columns], degrees=True).as_matrix()
        rotations[:, joint] = local if parent < 0 else rotations[:, parent] @ local
        column += len(order)
    return Motion(tuple(names), tuple(parents), np.array(offsets), rotations, float(frame_time.group(1)))


def figures(motion: Motion) -> Float[np.ndarray, "t 15 3 3"]:
    """The stick figure (see `figure.SEGMENTS`) in every frame, its heading as recorded.

    Limbs take the directions of the recorded bones and their twist against the file's rest pose; the trunk
    takes the recorded rotations. The rest pose must be an upright person, arms anywhere, whatever its up axis.
    Raises FileError for a skeleton without the joints of a person or with another rest pose.
    """
    joint = _find_joints(motion.names)
    rest = motion.rest_places()
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
    # Rows: the rest figure's left, back and up, as Anny's x, y and z.
    to_anny = np.stack([left, np.cross(up_rest, left), up_rest])
    # The up axis of the recording may be another one: the one along which heads are mostly above hips.
    up_world = _main_axis((motion.rotations[:, joint["hips"]] @ (head - hips)).mean(0))
    world_to_anny = turn_between(up_world, np.array([0.0, 0.0, 1.0]))

    def rotation(name: str) -> np.ndarray:
        return world_to_anny @ motion.rotations[:, joint[name]] @ to_anny.T

    def direction(name: str, end: int) -> np.ndarray:
        return to_anny @ (rest[end] - rest[joint[name]])

    down = np.array([0.0, 0.0, -1.0])
    result = {"root": rotation("hips"), "chest": rotation("chest"), "head": rotation("head")}
    for side in "LR":
        for limb, child in (("upper_arm", "forearm"), ("forearm", "hand"), ("thigh", "shin"), ("shin", "foot")):
            name = f"{side}_{limb}"
            result[name] = rotation(name) @ turn_between(down, direction(name, joint[f"{side}_{child}"]))
        # The hand continues the forearm at rest; the foot is flat at rest.
        along = direction(f"{side}_forearm", joint[f"{side}_hand"])
        result[f"{side}_hand"] = rotation(f"{side}_hand") @ turn_between(down, along)
        result[f"{side}_foot"] = rotation(f"{side}_foot")
    return np.stack([result[name] for name in SEGMENTS], 1)


def _find_joints(names: tuple[str, ...]) -> dict[str, int]:
    """Rows of the joints of a person among a file's names; raises FileError if one is missing."""
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
    """The coordinate axis, with sign, that is nearest to a direction."""
    axis = np.zeros(3)
    longest = int(np.abs(direction).argmax())
    axis[longest] = np.sign(direction[longest])
    return axis
