"""Animated GLB files, posed by the content of the file alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import dance, spin
from glb_reader import SkinnedFile

from i2l_meshnet.animation import write_animation, write_glb
from i2l_meshnet.animation.glb import influences
from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.errors import FileError, InputError

Vertices = Callable[[Body, BodyParams], np.ndarray]


@pytest.fixture(scope="module", params=["anny", "anny-hand", "anny-hand-left", "toy", "smpl", "mano"])
def body(request: pytest.FixtureRequest, body_directory: Path) -> Body:
    return load_body(request.param, body_directory)


def written(folder: Path, body: Body, params: BodyParams, times: torch.Tensor, full: bool = False) -> SkinnedFile:
    write_glb(folder / "person_07.glb", body, params, times, full)
    return SkinnedFile(folder / "person_07.glb")


def test_the_file_moves_the_mesh_like_the_body(body: Body, vertices: Vertices, tmp_path: Path) -> None:
    params, times = dance(body)
    file = written(tmp_path, body, params, times)
    np.testing.assert_allclose(file.times, times, atol=1e-6)
    for time, expected in zip(file.times, vertices(body, params), strict=True):
        np.testing.assert_allclose(file.pose(float(time)), expected, atol=1e-4)
    np.testing.assert_array_equal(file.faces, body.faces)
    # Without the animation, the file shows the first frame.
    np.testing.assert_allclose(file.pose(), vertices(body, params[0]), atol=1e-4)


def test_one_pose_has_no_animation_and_no_morph_targets(body: Body, vertices: Vertices, tmp_path: Path) -> None:
    params, _ = dance(body)
    file = written(tmp_path, body, params[20:21], torch.zeros(1))
    assert not file.gltf.animations
    assert not file.targets
    np.testing.assert_allclose(file.pose(), vertices(body, params[20]), atol=1e-5)


def test_weights_and_bones(body: Body, tmp_path: Path) -> None:
    file = written(tmp_path, body, *dance(body, 2))
    np.testing.assert_allclose(file.weights.sum(1), 1, atol=1e-6)
    assert (file.weights >= 0).all()
    assert (np.diff(file.weights, axis=1) <= 0).all(), "readers of one set of four need the largest four first"
    assert (file.joints[file.weights == 0] == 0).all()
    for joints, weights in zip(file.joints, file.weights, strict=True):
        used = joints[weights > 0]
        assert len(set(used)) == len(used)
    names = [file.gltf.nodes[joint].name for joint in file.skin.joints]
    assert set(body.bones) <= set(names)
    for bone, parent in enumerate(body.parents):
        above = file.parents[file.skin.joints[names.index(body.bones[bone])]]
        if parent >= 0 and not body.name.startswith("anny-hand"):
            assert file.gltf.nodes[above].name == body.bones[parent]
    assert file.gltf.nodes[file.parents[file.skin.joints[0]]].name == "person_07"
    assert body.licence in file.gltf.asset.copyright


@pytest.mark.parametrize("name", ["anny", "toy"])
def test_the_bound_mesh_is_upright_and_faces_the_viewer(name: str, tmp_path: Path) -> None:
    body = load_body(name)
    file = written(tmp_path, body, body.rest_params(1), torch.zeros(1))
    joints = dict(zip(body.skeleton.joints, body.joint_regressor.numpy() @ file.vertices, strict=True))
    assert joints["Head_top"][1] - joints["Pelvis"][1] > 0.4 * np.ptp(file.vertices[:, 1])
    assert joints["L_Hip"][0] > joints["R_Hip"][0]
    if "L_Toe" in joints:
        assert joints["L_Toe"][2] > joints["L_Ankle"][2]


def test_interpolation_takes_the_short_way(toy: Body, tmp_path: Path) -> None:
    params, times = dance(toy)
    file = written(tmp_path, toy, params.rotated(spin(torch.linspace(0, 12.0, len(times)))), times)
    for channel in file.gltf.animations[0].channels:
        if channel.target.path == "rotation":
            keys = file.values(file.gltf.animations[0].samplers[channel.sampler].output)
            np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-6)
            assert ((keys[1:] * keys[:-1]).sum(1) > 0).all()


def test_the_full_mesh_is_close_and_has_texture_coordinates(tmp_path: Path) -> None:
    body = load_body("anny")
    params, times = dance(body)
    file = written(tmp_path, body, params, times, full=True)
    uv = file.attribute("TEXCOORD_0")[file.faces]
    np.testing.assert_allclose(uv * (1, -1) + (0, 1), body.full_uv.numpy()[body.full_face_uv.numpy()], atol=1e-6)
    assert file.joints.shape[1] == 8
    corners = body.full_mesh(body(params[30]).vertices).double().numpy()[body.full_faces.numpy()] * CAMERA_TO_GLTF
    error = np.linalg.norm(file.pose(float(times[30]))[file.faces] - corners, axis=-1)
    # docs/outputs.md states these errors.
    assert error.mean() < 0.6e-3
    assert np.quantile(error, 0.99) < 5e-3


def test_a_rig_has_the_mean_shape(toy: Body, tmp_path: Path) -> None:
    params, times = dance(toy, 4)
    shape = params.shape + torch.tensor([[0.2], [-0.2], [0.4], [-0.4]])
    mixed = written(tmp_path, toy, dataclasses.replace(params, shape=shape), times).vertices
    np.testing.assert_allclose(mixed, written(tmp_path, toy, params, times).vertices, atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".bvh", ".usdc"])
def test_invalid_times(toy: Body, suffix: str, tmp_path: Path) -> None:
    params, times = dance(toy, 4)
    for wrong in (times[:3], times.flip(0), times - 2, times * float("nan")):
        with pytest.raises(InputError):
            write_animation(tmp_path / f"x{suffix}", toy, params, wrong)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written(toy: Body, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        write_glb(tmp_path / "file" / "x.glb", toy, *dance(toy, 4))


def test_influences_come_in_fours_largest_first() -> None:
    weights = np.array([[0.1, 0.2, 0.3, 0.05, 0.35], [0, 0, 1.0, 0, 0]])
    joints, values = influences(weights)
    assert joints.tolist() == [[4, 2, 1, 0, 3, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(values[0], [0.35, 0.3, 0.2, 0.1, 0.05, 0, 0, 0])
