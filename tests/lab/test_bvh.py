"""Motion capture: reading BVH, and figures from rigs with different names and axes."""

from pathlib import Path

import numpy as np
import pytest

from i2l_lab.synthetic.bvh import figures, read_bvh
from i2l_lab.synthetic.figure import SEGMENTS, FigureRetarget
from i2l_lab.synthetic.poses import read_mocap
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.errors import FileError

# Offsets of a rig in axes x left, y up, z front: T-pose arms.
RIG = {
    "Hips": (None, (0, 0, 0)),
    "Spine": ("Hips", (0, 2, 0)),
    "Neck": ("Spine", (0, 3, 0)),
    "Head": ("Neck", (0, 1, 0)),
    **{
        f"{side}{joint}": (before if before in ("Hips", "Spine") else f"{side}{before}", (sign * x, y, z))
        for side, sign in (("Left", 1), ("Right", -1))
        for joint, before, (x, y, z) in (
            ("UpLeg", "Hips", (1, 0, 0)),
            ("Leg", "UpLeg", (0, -4, 0)),
            ("Foot", "Leg", (0, -4, 0)),
            ("Toe", "Foot", (0, -0.5, 1)),
            ("Shoulder", "Spine", (0.5, 2.5, 0)),
            ("Arm", "Shoulder", (1, 0, 0)),
            ("ForeArm", "Arm", (3, 0, 0)),
            ("Hand", "ForeArm", (2.5, 0, 0)),
        )
    },
}

OTHER_NAMES = {
    "Hips": "hip",
    "Spine": "chest",
    "Neck": "neck",
    "Head": "head",
    "LeftUpLeg": "lThigh",
    "LeftLeg": "lShin",
    "LeftFoot": "lFoot",
    "LeftShoulder": "lCollar",
    "LeftArm": "lShldr",
    "LeftForeArm": "lForeArm",
    "LeftHand": "lHand",
}
OTHER_NAMES |= {name.replace("Left", "Right"): "r" + other[1:] for name, other in OTHER_NAMES.items() if "Left" in name}


def write_rig(path: Path, frames: list[dict[str, tuple[float, float, float]]], names=None, axes=(0, 1, 2)) -> Path:
    """Write a BVH file with rotations (z, x, y degrees) of some joints per frame; `axes` permutes the offsets."""
    names = names or {}
    order: list[str] = []

    def joint(name: str, depth: int) -> list[str]:
        order.append(name)
        pad = "\t" * depth
        offset = np.array(RIG[name][1], float)[list(axes)]
        kind = "ROOT" if depth == 0 else "JOINT"
        channels = "Zrotation Xrotation Yrotation"
        channels = f"6 Xposition Yposition Zposition {channels}" if depth == 0 else f"3 {channels}"
        lines = [f"{pad}{kind} {names.get(name, name)}", f"{pad}{{"]
        lines += [f"{pad}\tOFFSET {offset[0]} {offset[1]} {offset[2]}", f"{pad}\tCHANNELS {channels}"]
        children = [child for child, (before, _) in RIG.items() if before == name]
        for child in children:
            lines += joint(child, depth + 1)
        if not children:
            lines += [f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET 0 0 1", f"{pad}\t}}"]
        return [*lines, f"{pad}}}"]

    header = ["HIERARCHY", *joint("Hips", 0)]
    rows = []
    for frame in frames:
        values: list[float] = [0, 90, 0]
        for name in order:
            values += list(frame.get(name, (0, 0, 0)))
        rows.append(" ".join(str(value) for value in values))
    motion = ["MOTION", f"Frames: {len(frames)}", "Frame Time: 0.1", *rows]
    path.write_text("\n".join(header + motion) + "\n")
    return path


def direction(figure: np.ndarray, segment: str) -> np.ndarray:
    """Direction of a limb of a figure (Anny's axes)."""
    return figure[SEGMENTS.index(segment)] @ np.array([0, 0, -1.0])


@pytest.mark.parametrize("names", [{}, OTHER_NAMES])
def test_the_rest_pose_and_a_bent_knee(tmp_path: Path, names: dict[str, str]):
    """Frame 0: T-pose. Frame 1: the left shin bent back by 90 degrees."""
    motion = read_bvh(write_rig(tmp_path / "a.bvh", [{}, {"LeftLeg": (0, 90, 0)}], names))
    assert motion.frame_time == 0.1
    rest, bent = figures(motion)
    np.testing.assert_allclose(direction(rest, "L_upper_arm"), [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(direction(rest, "R_forearm"), [-1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(direction(rest, "L_shin"), [0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(rest[SEGMENTS.index("root")], np.eye(3), atol=1e-9)
    # Back is +y in Anny's axes.
    np.testing.assert_allclose(direction(bent, "L_shin"), [0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(direction(bent, "R_shin"), [0, 0, -1], atol=1e-9)


def test_a_rig_with_another_up_axis_and_a_turned_root(tmp_path: Path):
    """Offsets have z up and the front along -y. The root's rotation makes the world's y axis the up axis."""
    path = write_rig(tmp_path / "z.bvh", [{"Hips": (0, -90, 0)}] * 2, axes=(0, 2, 1))
    # The permutation (x, z, y) is a reflection, which swaps left and right. Mirror the front to undo it.
    text = path.read_text().replace("OFFSET 0.0 1.0 -0.5", "OFFSET 0.0 -1.0 -0.5")
    path.write_text(text)
    figure = figures(read_bvh(path))[0]
    np.testing.assert_allclose(figure[SEGMENTS.index("root")], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(direction(figure, "L_thigh"), [0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(direction(figure, "L_upper_arm"), [1, 0, 0], atol=1e-9)


def test_a_folder_of_recordings_becomes_poses_facing_front(anny: AnnyBody, tmp_path: Path):
    write_rig(tmp_path / "walk.bvh", [{"Hips": (0, 0, angle)} for angle in (0, 40, 80, 120)])
    (tmp_path / "broken.bvh").write_text("HIERARCHY\nnothing")
    poses = read_mocap(FigureRetarget(anny), tmp_path, 10.0)
    assert len(poses) == 4
    np.testing.assert_allclose(poses[:, 0], np.tile(np.eye(3), (4, 1, 1)), atol=1e-9)


SHORT = """HIERARCHY
ROOT a
{
OFFSET 0 0 0
CHANNELS 3 Zrotation Xrotation Yrotation
}
MOTION
Frames: 1
Frame Time: 0.1
1 2"""


@pytest.mark.parametrize("text", ["", "HIERARCHY\nROOT Hips\n{", SHORT])
def test_damaged_files_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "bad.bvh"
    path.write_text(text)
    with pytest.raises(FileError, match=r"bad\.bvh"):
        read_bvh(path)


def test_a_skeleton_without_hands_is_refused(anny: AnnyBody, tmp_path: Path):
    path = write_rig(tmp_path / "dog.bvh", [{}], {"LeftHand": "LeftPaw"})
    with pytest.raises(FileError, match="L hand"):
        figures(read_bvh(path))
    with pytest.raises(FileError):
        read_mocap(FigureRetarget(anny), tmp_path, 10.0)
