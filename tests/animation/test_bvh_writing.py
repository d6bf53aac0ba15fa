"""BVH files that were written, read by the reader of motion capture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import dance

from i2l_lab.synthetic.bvh import Motion, read_bvh
from i2l_meshnet.animation import bvh as bvh_module
from i2l_meshnet.animation import motion as motion_module
from i2l_meshnet.animation import write_bvh, write_glb
from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.animation.motion import RigClip
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError


@pytest.fixture(scope="module", params=["anny", "toy", "smpl", "mano"])
def body(request: pytest.FixtureRequest, body_directory: Path) -> Body:
    return load_body(request.param, body_directory)


def places(path: Path, motion: Motion) -> np.ndarray:
    """Where all joints are in every frame, from the file alone."""
    frames = [line.split() for line in path.read_text().splitlines()[-len(motion.rotations) :]]
    result = np.zeros((len(frames), len(motion.names), 3))
    for joint, parent in enumerate(motion.parents):
        carried = motion.rotations[:, parent] @ motion.offsets[joint]
        result[:, joint] = np.array(frames, float)[:, :3] if parent < 0 else result[:, parent] + carried
    return result


def test_the_skeleton_moves_as_the_rig_does(body: Body, tmp_path: Path) -> None:
    params, times = dance(body)
    write_bvh(tmp_path / "dancer.bvh", body, params, times)
    motion = read_bvh(tmp_path / "dancer.bvh")
    assert motion.frame_time == pytest.approx(float(times[1] - times[0]), abs=1e-6)
    expected = RigClip(body, params, times).motion()
    rows = [motion.names.index(name) for name in expected.rig.bones]
    turned, start = expected.rotations.clone(), expected.places[:, None].repeat(1, len(rows), 1)
    for bone, parent in enumerate(expected.rig.parents[1:], 1):
        start[:, bone] = start[:, parent] + turned[:, parent] @ expected.rig.offsets[bone]
        turned[:, bone] = turned[:, parent] @ turned[:, bone]
    np.testing.assert_allclose(motion.rotations[:, rows], turned, atol=1e-5)
    np.testing.assert_allclose(places(tmp_path / "dancer.bvh", motion)[:, rows], start, atol=1e-4)


def test_joints_are_where_the_body_has_them(body_directory: Path, tmp_path: Path) -> None:
    body = load_body("smpl", body_directory)
    params, times = dance(body)
    write_bvh(tmp_path / "dancer.bvh", body, params, times)
    motion = read_bvh(tmp_path / "dancer.bvh")
    rows = [motion.names.index(name) for name in body.bones]
    joints = body(params).joints[:, [body.skeleton.index(name) for name in body.bones]]
    np.testing.assert_allclose(
        places(tmp_path / "dancer.bvh", motion)[:, rows], joints.double().numpy() * CAMERA_TO_GLTF, atol=1e-4
    )


def test_the_rest_pose_is_an_upright_person_facing_z(tmp_path: Path) -> None:
    body = load_body("anny")
    write_bvh(tmp_path / "rest.bvh", body, body.rest_params(1), torch.zeros(1))
    motion = read_bvh(tmp_path / "rest.bvh")
    rest = dict(zip(motion.names, motion.rest_places(), strict=True))
    assert rest["head"][1] > 0.4
    assert rest["foot.L"][1] < -0.6
    assert rest["wrist.L"][0] > 0.2 > -0.2 > rest["wrist.R"][0]
    assert rest["toe1-1.L"][2] > rest["foot.L"][2] + 0.05
    # Unturned in the body's own frame is lying before the camera, not standing.
    assert not np.allclose(motion.rotations[0, 0], np.eye(3), atol=0.1)


def test_uneven_times_become_even_ones(tmp_path: Path) -> None:
    body = load_body("toy")
    params, times = dance(body, 61)
    write_bvh(tmp_path / "even.bvh", body, params, times)
    kept = [i for i in range(61) if i not in (7, 8, 30)]
    write_bvh(tmp_path / "gaps.bvh", body, params[kept], times[kept])
    even, gaps = read_bvh(tmp_path / "even.bvh"), read_bvh(tmp_path / "gaps.bvh")
    assert len(gaps.rotations) == len(even.rotations) == 61
    assert gaps.frame_time == pytest.approx(even.frame_time)
    np.testing.assert_allclose(gaps.rotations[kept], even.rotations[kept], atol=1e-5)
    np.testing.assert_allclose(gaps.rotations, even.rotations, atol=0.02)


def test_angles_do_not_jump(tmp_path: Path) -> None:
    body = load_body("toy")
    times = dance(body)[1]
    turn = torch.linspace(0, 12.0, len(times))
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
    about = torch.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], -1).unflatten(-1, (3, 3))
    rest = body.rest_params(len(times))
    write_bvh(tmp_path / "turning.bvh", body, rest.turned(about), times)
    lines = (tmp_path / "turning.bvh").read_text().splitlines()[-len(times) :]
    angles = np.array([line.split() for line in lines], float)[:, 3:]
    assert np.abs(np.diff(angles, axis=0)).max() < 15
    assert np.ptp(angles[:, 2]) == pytest.approx(np.degrees(12), abs=1)


def test_times_that_do_not_fit(tmp_path: Path) -> None:
    body = load_body("toy")
    params, times = dance(body, 4)
    with pytest.raises(InputError, match="times"):
        write_bvh(tmp_path / "x.bvh", body, params, times.flip(0))
    assert not list(tmp_path.iterdir())


def test_files_do_not_depend_on_how_many_poses_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = load_body("toy")
    params, times = dance(body, 41)
    times = times + 0.01 * (torch.arange(41) % 3)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        write_bvh(tmp_path / name / "dancer.bvh", body, params, times)
        write_glb(tmp_path / name / "dancer.glb", body, params, times)
        monkeypatch.setattr(motion_module, "BLOCK", 8)
        monkeypatch.setattr(bvh_module, "BLOCK", 8)
    for file in ("dancer.bvh", "dancer.glb"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
