"""Parity with the published SMPL_Layer and ManoLayer (goldens of the published code with stand-in models).

Tolerances: float32 rounding of the published layers is about 1e-6 m and 7e-5 mm (float64 run of the same code).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from i2l_meshnet.bodies import Body, BodyMesh, BodyParams, load_body
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.linear import load_mano
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix


def load(goldens: Path, name: str) -> dict[str, Tensor]:
    with np.load(goldens / f"{name}.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def pose_body(body: Body, pose: Tensor, shape: Tensor, translation: Tensor | None = None) -> BodyMesh:
    """The body posed by flattened axis-angles, in float64."""
    rotations = axis_angle_to_matrix(pose.unflatten(-1, (-1, 3)))
    move = torch.zeros(len(pose), 3, dtype=pose.dtype) if translation is None else translation
    return body.double()(BodyParams(rotations, shape, move))


def subset(points: Tensor) -> Tensor:
    """The 300 entries of each sample that the goldens contain."""
    flat = points.flatten(1)
    return flat[:, np.linspace(0, flat.shape[1] - 1, 300).astype(np.int64)]


def flat_hand(directory: Path, golden: dict[str, Tensor]) -> tuple[Body, Tensor]:
    """MANO without its mean pose, and the poses with the mean added.

    The published layer adds the mean to axis-angles of any length. A rotation matrix can only represent lengths up to
    pi, and one golden sample is longer.
    """
    path = find_body_file("mano", directory)
    mean = load_mano(path).pose_mean.flatten()
    return load_mano(path, flat=True), golden["pose"].double() + mean


@pytest.mark.parametrize(("name", "key"), [("smpl", ""), ("smpl-male", "male_"), ("smpl-female", "female_")])
def test_smpl_equals_the_published_layer(goldens: Path, body_directory: Path, name: str, key: str) -> None:
    golden = {each: value.double() for each, value in load(goldens, "layer_smpl").items()}
    body, pose, shape = load_body(name, body_directory), golden["pose"], golden["shape"]
    moved = pose_body(body, pose, shape, golden["trans"])
    torch.testing.assert_close(subset(moved.vertices), golden[f"verts_{key}trans_sub"], atol=2e-6, rtol=0)
    torch.testing.assert_close(moved.joints[:, :24], golden[f"joints_{key}trans"], atol=2e-6, rtol=0)
    if name != "smpl":
        return
    mesh, plain = pose_body(body, pose, shape), pose_body(body, pose, shape * 0)
    torch.testing.assert_close(mesh.vertices[:, ::7], golden["verts"], atol=2e-6, rtol=0)
    torch.testing.assert_close(mesh.joints[:, :24], golden["joints"], atol=2e-6, rtol=0)
    torch.testing.assert_close(subset(plain.vertices), golden["verts_nobeta_sub"], atol=2e-6, rtol=0)
    torch.testing.assert_close(plain.joints[:, :24], golden["joints_nobeta"], atol=2e-6, rtol=0)
    regressed = body.joint_regressor @ mesh.vertices
    torch.testing.assert_close(regressed, golden["regressed_joints"], atol=2e-6, rtol=0)
    torch.testing.assert_close(regressed[:, 24:], mesh.joints[:, 24:], atol=1e-9, rtol=0)


def test_mano_equals_the_published_layer(goldens: Path, body_directory: Path) -> None:
    golden = load(goldens, "layer_mano")  # millimetres
    body, pose = flat_hand(body_directory, golden)
    mesh = pose_body(body, pose, golden["shape"].double())
    torch.testing.assert_close(mesh.vertices * 1000, golden["verts"].double(), atol=2e-4, rtol=0)
    torch.testing.assert_close(mesh.joints * 1000, golden["joints"].double(), atol=2e-4, rtol=0)
    moved = pose_body(body, pose, golden["shape"].double(), golden["trans"].double())
    torch.testing.assert_close(subset(moved.vertices) * 1000, golden["verts_trans_sub"].double(), atol=2e-4, rtol=2e-7)
    torch.testing.assert_close(moved.joints * 1000, golden["joints_trans"].double(), atol=2e-4, rtol=2e-7)
    plain = pose_body(body, pose, golden["shape"].double() * 0)
    torch.testing.assert_close(subset(plain.vertices) * 1000, golden["verts_nobeta_sub"].double(), atol=2e-4, rtol=0)
    # With the mean pose, for samples whose axis-angles are at most pi.
    within = golden["pose"].unflatten(-1, (-1, 3)).norm(dim=-1).amax(1) < 3.1
    assert within.sum() >= 6
    pose, shape, vertices = (golden[key].double()[within] for key in ("pose", "shape", "verts"))
    curled = pose_body(load_body("mano", body_directory), pose, shape)
    torch.testing.assert_close(curled.vertices * 1000, vertices, atol=2e-4, rtol=0)


def test_manos_regressor_takes_the_right_or_the_published_fingertip(goldens: Path, body_directory: Path) -> None:
    golden = load(goldens, "layer_mano")
    path = find_body_file("mano", body_directory)
    body, pose = flat_hand(body_directory, golden)
    mesh = pose_body(body, pose, golden["shape"].double())
    published = load_mano(path, published_regressor=True).double().joint_regressor @ mesh.vertices
    torch.testing.assert_close(published * 1000, golden["regressed_joints"].double(), atol=2e-4, rtol=0)
    right = load_mano(path).double().joint_regressor @ mesh.vertices
    tip = body.skeleton.index("Middle_4")
    torch.testing.assert_close(right[:, tip], mesh.joints[:, tip], atol=1e-9, rtol=0)
    assert (right[:, tip] - published[:, tip]).norm(dim=-1).min() > 1e-4


@pytest.mark.parametrize("name", ["smpl", "mano"])
def test_gradients_equal_the_published_layers(goldens: Path, body_directory: Path, name: str) -> None:
    golden = load(goldens, f"layer_{name}")
    pose, unit = golden["pose"].double(), 1
    body = load_body(name, body_directory)
    if name == "mano":
        body, pose = flat_hand(body_directory, golden)
        unit = 1000  # The published layer returns millimetres.
    pose = pose.clone().requires_grad_()
    shape = golden["shape"].double().clone().requires_grad_()
    mesh = pose_body(body, pose, shape)
    vertices, joints = mesh.vertices * unit, mesh.joints[:, : golden["joints"].shape[1]] * unit
    of_vertices, of_joints = (
        torch.from_numpy(np.random.RandomState(seed).standard_normal(tuple(points.shape)))
        for seed, points in ((79, vertices), (80, joints))
    )
    loss = (vertices * of_vertices).sum() / 100 + (joints * of_joints).sum()
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden["grad_L"].double(), atol=0, rtol=1e-4)
    assert pose.grad is not None
    assert shape.grad is not None
    for got, key in ((pose.grad, "grad_pose"), (shape.grad, "grad_shape")):
        expected = golden[key].double()
        # The golden is a float32 sum over thousands of terms, and its norm of an axis-angle has 1e-8 added inside.
        torch.testing.assert_close(got, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)
