"""Animated GLB files, posed by nothing but what is in them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import dance
from glb_reader import SkinnedFile

from i2l_meshnet.animation import write_glb
from i2l_meshnet.animation.glb import influences
from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, InputError

BODIES = ("anny", "anny-hand", "anny-hand-left", "toy", "smpl", "mano")


@pytest.fixture(scope="module", params=BODIES)
def body(request: pytest.FixtureRequest, body_directory: Path) -> Body:
    return load_body(request.param, body_directory)


def ours(body: Body, params) -> np.ndarray:
    """Vertices in glTF's frame."""
    return body(params).vertices.double().numpy() * CAMERA_TO_GLTF


def test_the_file_moves_the_mesh_as_the_body_does(body: Body, tmp_path: Path) -> None:
    params, times = dance(body)
    write_glb(tmp_path / "dancer.glb", body, params, times)
    file = SkinnedFile(tmp_path / "dancer.glb")
    np.testing.assert_allclose(file.times, times, atol=1e-6)
    for time, expected in zip(file.times, ours(body, params), strict=True):
        np.testing.assert_allclose(file.pose(float(time)), expected, atol=1e-4)  # a tenth of a millimetre
    np.testing.assert_array_equal(file.faces, body.faces)
    # Without the animation, the file shows the first frame.
    np.testing.assert_allclose(file.pose(), ours(body, params[0]), atol=1e-4)


def test_one_pose_is_a_plain_rig_without_animation_or_morphs(body: Body, tmp_path: Path) -> None:
    params, _ = dance(body)
    write_glb(tmp_path / "still.glb", body, params[20:21], torch.zeros(1))
    file = SkinnedFile(tmp_path / "still.glb")
    assert not file.gltf.animations
    assert not file.targets
    np.testing.assert_allclose(file.pose(), ours(body, params[20]), atol=1e-5)


def test_skin_weights_are_as_gltf_wants_them(body: Body, tmp_path: Path) -> None:
    params, times = dance(body, 2)
    write_glb(tmp_path / "rig.glb", body, params, times)
    file = SkinnedFile(tmp_path / "rig.glb")
    np.testing.assert_allclose(file.weights.sum(1), 1, atol=1e-6)
    assert (file.weights >= 0).all()
    assert (np.diff(file.weights, axis=1) <= 0).all(), "readers of one set of four need the largest four first"
    assert (file.joints[file.weights == 0] == 0).all()
    for joints, weights in zip(file.joints, file.weights, strict=True):
        used = joints[weights > 0]
        assert len(set(used)) == len(used)


def test_the_bound_mesh_stands_upright_and_faces_the_viewer(tmp_path: Path) -> None:
    for name in ("anny", "toy"):
        body = load_body(name)
        write_glb(tmp_path / f"{name}.glb", body, body.rest_params(1), torch.zeros(1))
        file = SkinnedFile(tmp_path / f"{name}.glb")
        joints = body.joint_regressor.numpy() @ file.vertices
        place = dict(zip(body.skeleton.joints, joints, strict=True))
        height = np.ptp(file.vertices[:, 1])
        assert place["Head_top"][1] - place["Pelvis"][1] > 0.4 * height
        assert place["L_Hip"][0] > place["R_Hip"][0]
        # The toes (the toy has none: the ankles) and all joints keep to the bound mesh's sides.
        if "L_Toe" in place:
            assert place["L_Toe"][2] > place["L_Ankle"][2]


def test_nothing_spins_between_frames(tmp_path: Path) -> None:
    body = load_body("toy")
    params, times = dance(body)
    turn = torch.linspace(0, 12.0, len(times))
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
    about = torch.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], -1).unflatten(-1, (3, 3))
    write_glb(tmp_path / "turning.glb", body, params.turned(about), times)
    file = SkinnedFile(tmp_path / "turning.glb")
    for channel in file.gltf.animations[0].channels:
        if channel.target.path == "rotation":
            keys = file.values(file.gltf.animations[0].samplers[channel.sampler].output)
            np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-6)
            assert ((keys[1:] * keys[:-1]).sum(1) > 0).all()


def test_bones_keep_names_and_parents(body: Body, tmp_path: Path) -> None:
    params, times = dance(body, 3)
    write_glb(tmp_path / "person_07.glb", body, params, times)
    file = SkinnedFile(tmp_path / "person_07.glb")
    names = [file.gltf.nodes[joint].name for joint in file.skin.joints]
    assert set(body.bones) <= set(names)
    for bone, parent in enumerate(body.parents):
        above = file.parents[file.skin.joints[names.index(body.bones[bone])]]
        if parent >= 0 and body.name != "anny-hand" and body.name != "anny-hand-left":
            assert file.gltf.nodes[above].name == body.bones[parent]
    assert file.gltf.nodes[file.parents[file.skin.joints[0]]].name == "person_07"
    assert body.licence in file.gltf.asset.copyright


def test_the_full_mesh_comes_near_and_has_texture_coordinates(tmp_path: Path) -> None:
    body = load_body("anny")
    params, times = dance(body)
    write_glb(tmp_path / "full.glb", body, params, times, full=True)
    file = SkinnedFile(tmp_path / "full.glb")
    uv = file.attribute("TEXCOORD_0")[file.faces]
    np.testing.assert_allclose(uv * (1, -1) + (0, 1), body.full_uv.numpy()[body.full_face_uv.numpy()], atol=1e-6)
    assert file.joints.shape[1] == 8
    corners = body.full_mesh(body(params[30]).vertices).double().numpy()[body.full_faces.numpy()] * CAMERA_TO_GLTF
    off = np.linalg.norm(file.pose(float(times[30]))[file.faces] - corners, axis=-1)
    # As docs/outputs.md tells.
    assert off.mean() < 0.6e-3
    assert np.quantile(off, 0.99) < 5e-3


def test_a_rig_has_one_shape_the_mean(tmp_path: Path) -> None:
    body = load_body("toy")
    params, times = dance(body, 4)
    shape = params.shape + torch.tensor([[0.2], [-0.2], [0.4], [-0.4]])
    write_glb(tmp_path / "a.glb", body, dataclasses.replace(params, shape=shape), times)
    write_glb(tmp_path / "b.glb", body, params, times)
    mixed, plain = SkinnedFile(tmp_path / "a.glb"), SkinnedFile(tmp_path / "b.glb")
    np.testing.assert_allclose(mixed.vertices, plain.vertices, atol=1e-6)


def test_times_and_paths_that_do_not_fit(tmp_path: Path) -> None:
    body = load_body("toy")
    params, times = dance(body, 4)
    for wrong in (times[:3], times.flip(0), times - 2, times * float("nan")):
        with pytest.raises(InputError, match="times"):
            write_glb(tmp_path / "x.glb", body, params, wrong)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        write_glb(tmp_path / "file" / "x.glb", body, params, times)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_influences_come_in_fours_largest_first() -> None:
    weights = np.array([[0.1, 0.2, 0.3, 0.05, 0.35], [0, 0, 1.0, 0, 0]])
    joints, values = influences(weights)
    assert joints.tolist() == [[4, 2, 1, 0, 3, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(values[0], [0.35, 0.3, 0.2, 0.1, 0.05, 0, 0, 0])
