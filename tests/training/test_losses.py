"""The losses against the published ones, and their gradients where the published ones break."""

import golden_recipe
import numpy as np
import pytest
import torch
from golden_recipe import golden, subsample
from torch import Tensor

from i2l_meshnet.training import losses
from i2l_meshnet.training.losses import PointTarget, edge_loss, normal_loss, point_loss

TEMPLATES = {"body": "smpl", "hand": "mano"}
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
SQUARE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])


@pytest.fixture(params=["body", "hand"], scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, Tensor, PointTarget, Tensor]:
    """Kind, predicted vertices, target and faces of the goldens."""
    kind, models = request.param, golden("models")
    name = TEMPLATES[kind]
    raw = golden_recipe.targets(kind, models[f"{name}/v_template"], 2, 90)
    points = torch.from_numpy(raw["fit_mesh_img"])
    weight = torch.from_numpy(raw["fit_mesh_trunc"]).expand(-1, -1, 3)
    noise = np.random.RandomState(91).standard_normal(tuple(points.shape)).astype(np.float32)
    faces = torch.from_numpy(models[f"{name}/f"].astype(np.int64))
    return kind, points + torch.from_numpy(noise), PointTarget(points, weight), faces


@pytest.mark.parametrize("name", ["coord", "normal", "edge"])
def test_golden_values_and_gradients(case: tuple[str, Tensor, PointTarget, Tensor], name: str) -> None:
    kind, points, target, faces = case
    points = points.clone().requires_grad_()
    value = {
        "coord": lambda: point_loss(points, target),
        "normal": lambda: normal_loss(points, target, faces),
        "edge": lambda: edge_loss(points, target, faces),
    }[name]()
    value.backward()
    numbers, prefix = golden("losses"), f"{kind}/{name}"
    assert value.item() == pytest.approx(float(numbers[f"{prefix}/mean"]), abs=1e-6)
    assert points.grad is not None
    expected = numbers[f"{prefix}/grad_sub"]
    np.testing.assert_allclose(
        subsample(points.grad.numpy(), 1000), expected, rtol=0, atol=1e-6 * np.abs(expected).max()
    )
    assert float(points.grad.double().norm()) == pytest.approx(float(numbers[f"{prefix}/grad_norm"]), rel=1e-5)


def test_golden_of_a_missing_depth_is_a_z_weight_of_zero(case: tuple[str, Tensor, PointTarget, Tensor]) -> None:
    kind, points, target, _ = case
    weight = target.weight.clone()
    weight[0, :, 2] = 0
    expected = float(golden("losses")[f"{kind}/coord_is3D_01/mean"])
    assert point_loss(points, PointTarget(target.points, weight)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("factors", [(0, 1), (1, 0)], ids=["predicted", "target"])
def test_vertices_that_coincide_have_finite_gradients(weight: float, factors: tuple[int, int]) -> None:
    points = (factors[0] * SQUARE).expand(2, -1, -1).clone().requires_grad_()
    target = PointTarget((factors[1] * SQUARE).expand(2, -1, -1), torch.full((2, 4, 3), weight))
    (normal_loss(points, target, FACES) + edge_loss(points, target, FACES)).backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
    assert points.grad.abs().max() < 10


def test_surface_losses_ignore_what_has_no_depth() -> None:
    """An edge's length and a face's normal need all three axes of their vertices."""
    weight = torch.ones(1, 4, 3)
    weight[0, 0, 2] = 0
    target = PointTarget(SQUARE[None], weight)
    points = SQUARE[None].clone()
    points[0, 0] += torch.tensor([3.0, 1.0, 2.0])
    assert normal_loss(points, target, FACES).item() == 0
    assert edge_loss(points, target, FACES).item() == 0
    assert point_loss(points, target).item() == pytest.approx(4 / 12)


def test_pose_and_shape_losses_leave_out_untrusted_fits() -> None:
    pose, shape, joints = torch.rand(2, 16, 3), torch.rand(2, 10), torch.zeros(2, 21, 3)
    zero = PointTarget(torch.zeros(2, 21, 3), torch.ones(2, 21, 3))
    target = losses.ParameterTarget(torch.zeros(2, 16, 3), torch.zeros(2, 10), torch.tensor([1.0, 0.0]), zero, zero)
    found = losses.parameter_losses(pose, shape, joints, target)
    assert found["pose_param"].item() == pytest.approx(float(pose[0].sum()) / 96)
    assert found["shape_param"].item() == pytest.approx(float(shape[0].sum()) / 20)
