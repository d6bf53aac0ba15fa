"""BVH files that we wrote, read by the reader of motion capture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import dance, spin

from i2l_lab.synthetic.bvh import Recording, read_bvh
from i2l_meshnet.animation import bvh as bvh_module
from i2l_meshnet.animation import motion as motion_module
from i2l_meshnet.animation import write_bvh, write_glb
from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.animation.motion import RigClip
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body, BodyParams


def written(folder: Path, body: Body, params: BodyParams, times: torch.Tensor) -> tuple[Recording, np.ndarray]:
    """What a reader gets from the file, and the file's numbers, frame by frame."""
    path = folder / "dancer.bvh"
    write_bvh(path, body, params, times)
    motion = read_bvh(path)
    rows = [line.split() for line in path.read_text().splitlines()[-len(motion.rotations) :]]
    return motion, np.array(rows, float)


def heads(motion: Recording, rows: np.ndarray) -> np.ndarray:
    """Where all joints are in every frame, from the file alone."""
    result = np.zeros((len(rows), len(motion.names), 3))
    for joint, parent in enumerate(motion.parents):
        rotated = motion.rotations[:, parent] @ motion.offsets[joint]
        result[:, joint] = rows[:, :3] if parent < 0 else result[:, parent] + rotated
    return result


def test_the_skeleton_moves_like_the_rig(body: Body, tmp_path: Path) -> None:
    params, times = dance(body)
    motion, rows = written(tmp_path, body, params, times)
    assert motion.frame_time == pytest.approx(float(times[1] - times[0]), abs=1e-6)
    expected = RigClip(body, params, times).motion()
    order = [motion.names.index(name) for name in expected.rig.bones]
    rotations, starts = expected.rotations.clone(), expected.positions[:, None].repeat(1, len(order), 1)
    for bone, parent in enumerate(expected.rig.parents[1:], 1):
        starts[:, bone] = starts[:, parent] + rotations[:, parent] @ expected.rig.offsets[bone]
        rotations[:, bone] = rotations[:, parent] @ rotations[:, bone]
    np.testing.assert_allclose(motion.rotations[:, order], rotations, atol=1e-5)
    np.testing.assert_allclose(heads(motion, rows)[:, order], starts, atol=1e-4)


def test_joints_are_those_of_the_body(body_directory: Path, tmp_path: Path) -> None:
    body = load_body("smpl", body_directory)
    params, times = dance(body)
    motion, rows = written(tmp_path, body, params, times)
    order = [motion.names.index(name) for name in body.bones]
    joints = body(params).joints[:, [body.skeleton.index(name) for name in body.bones]].double().numpy()
    np.testing.assert_allclose(heads(motion, rows)[:, order], joints * CAMERA_TO_GLTF, atol=1e-4)


def test_the_rest_pose_is_upright_and_faces_z(tmp_path: Path) -> None:
    body = load_body("anny")
    motion, _ = written(tmp_path, body, body.rest_params(1), torch.zeros(1))
    rest = dict(zip(motion.names, motion.rest_positions(), strict=True))
    assert rest["head"][1] > 0.4
    assert rest["foot.L"][1] < -0.6
    assert rest["wrist.L"][0] > 0.2 > -0.2 > rest["wrist.R"][0]
    assert rest["toe1-1.L"][2] > rest["foot.L"][2] + 0.05
    # Without a rotation in the body's own frame, the person lies in front of the camera.
    assert not np.allclose(motion.rotations[0, 0], np.eye(3), atol=0.1)


def test_uneven_times_become_even(toy: Body, tmp_path: Path) -> None:
    params, times = dance(toy, 61)
    kept = [i for i in range(61) if i not in (7, 8, 30)]
    even, _ = written(tmp_path, toy, params, times)
    gaps, _ = written(tmp_path, toy, params[kept], times[kept])
    assert len(gaps.rotations) == len(even.rotations) == 61
    assert gaps.frame_time == pytest.approx(even.frame_time)
    np.testing.assert_allclose(gaps.rotations[kept], even.rotations[kept], atol=1e-5)
    np.testing.assert_allclose(gaps.rotations, even.rotations, atol=0.02)


def test_angles_do_not_jump(toy: Body, tmp_path: Path) -> None:
    times = dance(toy)[1]
    rotation = spin(torch.linspace(0, 12.0, len(times)))
    angles = written(tmp_path, toy, toy.rest_params(len(times)).rotated(rotation), times)[1][:, 3:]
    assert np.abs(np.diff(angles, axis=0)).max() < 15
    assert np.ptp(angles[:, 2]) == pytest.approx(np.degrees(12), abs=1)


def test_the_size_of_a_block_does_not_change_the_files(
    toy: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, times = dance(toy, 41)
    times = times + 0.01 * (torch.arange(41) % 3)
    for name in ("whole", "blocks"):
        (tmp_path / name).mkdir()
        write_bvh(tmp_path / name / "dancer.bvh", toy, params, times)
        write_glb(tmp_path / name / "dancer.glb", toy, params, times)
        monkeypatch.setattr(motion_module, "BLOCK", 8)
        monkeypatch.setattr(bvh_module, "BLOCK", 8)
    for file in ("dancer.bvh", "dancer.glb"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "blocks" / file).read_bytes()
