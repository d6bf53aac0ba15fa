"""The fit of body parameters to keypoints: derivatives, outliers, and failed fits."""

import dataclasses

import pytest
import torch
from torch import Tensor

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.bodies.linear_points import LinearPoints
from i2l_meshnet.bodies.skinning import global_rotations, local_rotations
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.models import fitting
from i2l_meshnet.models.assembly import build
from i2l_meshnet.models.config import LiftingSizes
from i2l_meshnet.models.fitting import ParameterFit, View, camera_params, deviation, point_derivatives, relative_depth
from i2l_meshnet.models.keypoint import GRID, keypoint_config
from i2l_meshnet.models.output import LixelOutput

FACING = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
PEOPLE = 24
OFF = 0.15
"""Standard deviation of the errors of the regressed rotations, radians."""


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    found = load_body("anny")
    assert isinstance(found, AnnyBody)
    return found


def _noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class People:
    """Posed people in front of a camera, and a network output with random errors."""

    def __init__(self, body: AnnyBody) -> None:
        n, bones = PEOPLE, len(body.bones)
        pose = axis_angle_to_matrix(0.2 * _noise(n, bones, 3, seed=1))
        pose[:, 0] = FACING @ pose[:, 0]
        shape = (body.mean_shape + 0.1 * _noise(n, 6, seed=2)).clamp(0, 1)
        position = torch.tensor([0.3, 0.1, 4.0]) + 0.2 * _noise(n, 3, seed=3)
        self.true = BodyParams(pose, shape, position)
        self.camera = Camera(torch.full((n, 2), 900.0), torch.full((n, 2), 400.0))
        mesh = body(self.true)
        assert body.keypoint_regressor is not None
        pixels = self.camera.project(body.keypoint_regressor @ mesh.vertices)
        low, high = pixels.amin(1), pixels.amax(1)
        self.crop = Crop.around(torch.cat([low, high - low], -1), GRID.crop_size, margin=1.2)
        self.view_rotation = GRID.view_rotation(self.crop, self.camera)
        self.joints = mesh.joints
        root = mesh.joints[:, body.skeleton.root_index, 2]
        lixels = GRID.from_camera(mesh.joints, self.crop, self.camera, root)
        self.depth = relative_depth(GRID, lixels, body.skeleton.root_index)
        self.rotations = self.view_rotation.mT[:, None] @ global_rotations(pose, body.parents)
        found = axis_angle_to_matrix(OFF * _noise(n, bones, 3, seed=4)) @ self.rotations
        regressed = BodyParams(local_rotations(found, body.parents), shape, torch.zeros(n, 3))
        keypoints = torch.cat([self.crop.to_crop(pixels), torch.full((n, 26, 1), 0.9)], -1)
        vertices = GRID.from_camera(mesh.vertices, self.crop, self.camera, root)
        self.output = LixelOutput(lixels, vertices, lixels, regressed, keypoints)


@pytest.fixture(scope="module")
def people(body: AnnyBody) -> People:
    return People(body)


@pytest.fixture(scope="module")
def fit(body: AnnyBody) -> ParameterFit:
    """A fit that has learned the errors of `People`."""
    made, draws = ParameterFit(body), 4000
    angles = OFF * _noise(draws, 3 * len(body.bones), seed=5)
    shape, depth = 0.02 * _noise(draws, 6, seed=6), 0.03 * _noise(draws, len(body.skeleton.joints), seed=7)
    made.learn(torch.cat([angles, shape, depth], 1))
    return made


def _joint_error(body: AnnyBody, params: BodyParams, people: People) -> Tensor:
    root = body.skeleton.root_index
    found = body(params).joints
    return ((found - found[:, root, None]) - (people.joints - people.joints[:, root, None])).norm(dim=-1).mean(1)


def test_points_are_linear_in_the_rotations(body: AnnyBody):
    assert body.keypoint_regressor is not None
    regressor = torch.cat([body.keypoint_regressor, body.joint_regressor])
    pose, shape = axis_angle_to_matrix(_noise(3, len(body.bones), 3, seed=8)), torch.rand(3, 6)
    arms = LinearPoints(body, regressor)(shape)
    points = torch.einsum("bkij,bpkj->bpi", global_rotations(pose, body.parents), arms)
    expected = regressor @ body(BodyParams(pose, shape, torch.zeros(3, 3))).vertices
    torch.testing.assert_close(points, expected, atol=2e-6, rtol=0)


def test_derivatives_equal_those_of_the_projection(body: AnnyBody, people: People):
    fit = ParameterFit(body).double()
    shape, rotations = people.true.shape[:1].double(), people.rotations[:1].double()
    root = people.true.translation[:1].double()
    rays, scale = torch.zeros(1, 26, 2).double(), torch.full((1, 26, 2), 100.0).double()
    view = View(rays, scale, people.view_rotation[:1].double())

    def projected(step: Tensor) -> Tensor:
        moved = axis_angle_to_matrix(step[:108].reshape(1, -1, 3)) @ rotations
        points = torch.einsum("bkij,bpkj->bpi", moved, fit.points(shape + step[108:114]))
        seen = view.rotate(points) + root + step[114:]
        return (seen[..., :2] / seen[..., 2:] * 100).flatten()

    points, slopes = point_derivatives(rotations, *fit.arms(shape))
    found = view.residuals(view.rotate(points) + root, view.rotate(slopes))[1].flatten(0, 2)
    numeric = torch.autograd.functional.jacobian(projected, torch.zeros(117).double())
    assert isinstance(numeric, Tensor)
    exact = [*range(108), *range(114, 117)]
    torch.testing.assert_close(found[:, exact], numeric[:, exact], atol=1e-6, rtol=1e-6)
    # Derivatives by the shape are finite differences.
    torch.testing.assert_close(found[:, 108:114], numeric[:, 108:114], atol=0.05, rtol=0.05)


def test_the_fit_halves_the_joint_error(body: AnnyBody, people: People, fit: ParameterFit):
    assert people.output.params is not None
    before = _joint_error(body, people.output.params.rotated(people.view_rotation), people)
    after = _joint_error(body, fit(people.output, GRID, people.crop, people.camera), people)
    assert float(after.mean()) < 0.5 * float(before.mean())
    assert (after < before).float().mean() > 0.9


def test_outliers_are_faded_out(body: AnnyBody, people: People, fit: ParameterFit):
    assert people.output.keypoints is not None
    wrong = people.output.keypoints.clone()
    wrong[:, 9, :2] += 80.0
    output = dataclasses.replace(people.output, keypoints=wrong)
    clean = _joint_error(body, fit(people.output, GRID, people.crop, people.camera), people)
    spoilt = _joint_error(body, fit(output, GRID, people.crop, people.camera), people)
    assert float(spoilt.mean()) < 2 * float(clean.mean())


def test_an_exact_answer_stays(body: AnnyBody, people: People, fit: ParameterFit):
    regressed = BodyParams(local_rotations(people.rotations, body.parents), people.true.shape, torch.zeros(PEOPLE, 3))
    output = dataclasses.replace(people.output, params=regressed)
    unbiased = ParameterFit(body)
    unbiased.precision.copy_(fit.precision)
    fitted = unbiased(output, GRID, people.crop, people.camera)
    assert float(_joint_error(body, fitted, people).max()) < 2e-3


def test_a_failed_fit_returns_the_regressed_parameters(body: AnnyBody, people: People, fit: ParameterFit):
    assert people.output.keypoints is not None
    assert people.output.params is not None
    broken = people.output.keypoints.clone()
    broken[0] = torch.nan
    fitted = fit(dataclasses.replace(people.output, keypoints=broken), GRID, people.crop, people.camera)
    torch.testing.assert_close(fitted[:1].pose, people.output.params.rotated(people.view_rotation)[:1].pose)
    whole = fit(people.output, GRID, people.crop, people.camera)
    torch.testing.assert_close(fitted[1:].pose, whole[1:].pose)


def test_a_person_alone_equals_the_person_in_a_batch(people: People, fit: ParameterFit):
    whole = fit(people.output, GRID, people.crop, people.camera)
    single = fit(people.output[3:4], GRID, people.crop[3:4], people.camera[3:4])
    torch.testing.assert_close(whole[3:4].pose, single.pose, atol=1e-4, rtol=0)


def test_the_deviation_falls_with_the_confidence():
    values = deviation(torch.linspace(0, 1, 50))
    assert (values.diff() <= 0).all()
    assert float(values[0]) == fitting.DEVIATION[0]
    assert float(values[-1]) == pytest.approx(fitting.DEVIATION[-1])


def test_networks_without_a_fit_keep_their_parameters(body: AnnyBody, people: People):
    sizes = LiftingSizes(32, 1, joint_hidden=16, joint_channels=4, mesh_rank=24, mesh_hidden=16, mesh_channels=4)
    network = build(keypoint_config(body, sizes), body)
    assert network.parameter_fit is None
    assert people.output.params is not None
    found = camera_params(network, people.output, people.crop, people.camera)
    torch.testing.assert_close(found.pose, people.output.params.rotated(people.view_rotation).pose)
