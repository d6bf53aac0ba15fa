"""Sampled poses: figures on Anny's bones, the bank, the mix, limits and collisions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from i2l_lab.synthetic.figure import SEGMENTS, FigureRetarget, face_front, rotation_between
from i2l_lab.synthetic.poses import (
    LIMITS,
    CollisionFigure,
    PoseBank,
    PoseSampler,
    limit_rotations,
    read_makehuman_poses,
    segment_distance,
)
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.errors import FileError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def joints(body: AnnyBody, local: np.ndarray) -> dict[str, np.ndarray]:
    """Joints of one pose of the average body, by name."""
    pose = torch.from_numpy(local).float()
    with torch.no_grad():
        points = body(BodyParams(pose, body.mean_shape, torch.zeros(3))).joints.numpy()
    return {name: points[body.skeleton.index(name)] for name in body.skeleton.joints}


def figure(**rotations: np.ndarray) -> np.ndarray:
    """The upright figure with some segments rotated."""
    result = np.tile(np.eye(3), (1, len(SEGMENTS), 1, 1))
    for name, rotation in rotations.items():
        result[0, SEGMENTS.index(name)] = rotation
    return result


@given(st.integers(0, 2**31), st.sampled_from(["any", "same", "opposite"]))
def test_rotation_between_rotates_one_direction_to_the_other(seed: int, case: str):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 4, 3))
    b = {"any": b, "same": a * 3, "opposite": -a}[case]
    turn = rotation_between(a, b)
    unit = b / np.linalg.norm(b, axis=1, keepdims=True)
    moved = (turn @ a[..., None])[..., 0] / np.linalg.norm(a, axis=1, keepdims=True)
    np.testing.assert_allclose(moved, unit, atol=1e-7)
    np.testing.assert_allclose(np.linalg.det(turn), 1, atol=1e-9)


def test_the_identity_figure_stands_with_hanging_arms(anny: AnnyBody):
    place = joints(anny, FigureRetarget(anny)(figure())[0])
    for side in "LR":
        for upper, lower in (("Hip", "Knee"), ("Knee", "Ankle"), ("Shoulder", "Elbow"), ("Elbow", "Wrist")):
            limb = place[f"{side}_{lower}"] - place[f"{side}_{upper}"]
            assert limb[2] / np.linalg.norm(limb) < -0.99, (side, lower)
    assert place["Nose"][1] < place["Neck"][1]  # faces -y


def test_the_heading_becomes_the_front():
    turns = Rotation.random(50, random_state=1).as_matrix()
    front = -(face_front(turns) @ turns)[:, :, 1]
    upright = np.linalg.norm(turns[:, :2, 1], axis=1) > 0.3
    assert (front[upright, 1] < 0).all()
    np.testing.assert_allclose(front[upright, 0], 0, atol=1e-9)


def test_samples_are_reproducible_rotations_within_limits(anny: AnnyBody, bank: PoseBank):
    sampler = PoseSampler(anny, bank)
    poses = sampler.sample(200, generator(5))
    assert poses.shape == (200, len(anny.bones), 3, 3)
    torch.testing.assert_close(poses, sampler.sample(200, generator(5)))
    assert not torch.equal(poses, sampler.sample(200, generator(6)))
    torch.testing.assert_close(poses @ poses.mT, torch.eye(3).expand_as(poses), atol=1e-4, rtol=0)
    angle = ((poses.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos() * 180 / torch.pi
    for column, bone in enumerate(anny.bones):
        limit = next((value for start, value in LIMITS.items() if bone.startswith(start)), 180)
        assert angle[:, column].max() < limit + 0.2, bone
    assert not CollisionFigure(anny).collides(poses).any()


def test_left_and_right_are_alike_on_average(anny: AnnyBody, bank: PoseBank):
    poses = PoseSampler(anny, bank).sample(1500, generator())
    angle = ((poses.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos().mean(0)
    for bone in ("lowerarm01", "upperarm01", "lowerleg01", "upperleg01"):
        left, right = (angle[anny.bones.index(f"{bone}.{side}")] for side in "LR")
        assert abs(left - right) < 0.08, bone


def test_a_bank_splits_into_two_parts(bank: PoseBank):
    train, held = bank.split(False).sources["procedural"], bank.split(True).sources["procedural"]
    assert len(train) + len(held) == len(bank.sources["procedural"])
    assert 0.08 < len(held) / len(train) < 0.2
    root = torch.cat([train, held])[:, 0].flatten(1)
    assert len(root.unique(dim=0)) == len(root)


def test_rotations_are_limited_about_their_axis():
    vector = np.array([[0.3, 0.4, 0.0], [1.5, 0.0, 2.0]])
    poses = torch.from_numpy(Rotation.from_rotvec(vector).as_matrix()).float()[None]
    cut = limit_rotations(poses, torch.tensor([1.0, 1.0]))
    result = Rotation.from_matrix(cut[0].numpy()).as_rotvec()
    np.testing.assert_allclose(result, [[0.3, 0.4, 0.0], [0.6, 0.0, 0.8]], atol=1e-5)


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_segment_distance_against_sampled_points(seed: int):
    ends = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 3)))
    a, b, c, d = ends
    steps = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    first, second = a + steps * (b - a), c + steps * (d - c)
    brute = torch.cdist(first, second).min()
    assert abs(segment_distance(a, b, c, d) - brute) < 0.01


def test_an_arm_through_the_chest_collides_and_the_rest_pose_does_not(anny: AnnyBody):
    check = CollisionFigure(anny)
    rest = torch.eye(3).repeat(1, len(anny.bones), 1, 1)
    assert not check.collides(rest).item()
    inward = Rotation.from_euler("y", 115, degrees=True).as_matrix()
    back = Rotation.from_euler("y", 45, degrees=True).as_matrix()
    through = FigureRetarget(anny)(figure(L_upper_arm=back, L_forearm=inward, L_hand=inward))
    assert check.collides(torch.from_numpy(through).float()).item()


def test_collision_figure_follows_the_body(anny: AnnyBody, bank: PoseBank):
    """Its joints are within 4 cm of the body's joints on average."""
    poses = bank.sources["procedural"][:50]
    check = CollisionFigure(anny)
    with torch.no_grad():
        mesh = anny(BodyParams(poses, anny.mean_shape.expand(50, -1), torch.zeros(50, 3)))
    positions = check.joints(poses)
    for row, name in enumerate(check.rest):
        body_joint = mesh.joints[:, anny.skeleton.index(name)] - mesh.joints[:, anny.skeleton.root_index]
        assert (positions[:, row] - body_joint).norm(dim=1).mean() < 0.04, name


def test_makehuman_poses_are_read_in_their_axes(anny: AnnyBody, tmp_path: Path):
    """MakeHuman's x axis is Anny's x axis: both are to the left."""
    turn = [np.sin(np.pi / 4), 0.0, 0.0, np.cos(np.pi / 4)]
    path = tmp_path / "package" / "src" / "json" / "poses" / "poses.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"kneel": {"lowerleg01.L": turn, "tongue01": turn}}))
    poses = read_makehuman_poses(anny, tmp_path)
    expected = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    np.testing.assert_allclose(poses[0, anny.bones.index("lowerleg01.L")], expected, atol=1e-9)
    with pytest.raises(FileError):
        read_makehuman_poses(anny, tmp_path / "nowhere")
