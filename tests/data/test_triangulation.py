"""Triangulation: points are recovered from their projections, even if a view is wrong."""

import torch

from i2l_meshnet.data.triangulation import (
    PosedCamera,
    associate,
    reprojection_error,
    triangulate,
    triangulate_best_views,
)
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix

GENERATOR = torch.Generator().manual_seed(0)
POINTS = torch.randn(12, 3, generator=GENERATOR, dtype=torch.float64) * 0.5


def ring(views: int = 4) -> PosedCamera:
    """Cameras in a circle of 4 m, looking at its middle."""
    angle = torch.arange(views, dtype=torch.float64) * (6.28 / views)
    turn = axis_angle_to_matrix(torch.stack([torch.zeros_like(angle), angle, torch.zeros_like(angle)], -1))
    focal = torch.full((views, 2), 1500.0, dtype=torch.float64)
    center = torch.tensor([[540.0, 960.0]], dtype=torch.float64).expand(views, 2)
    return PosedCamera(
        Camera(focal, center), turn, torch.tensor([[0.0, 0.0, 4.0]], dtype=torch.float64).expand(views, 3)
    )


def seen(cameras: PosedCamera, points: torch.Tensor) -> torch.Tensor:
    return cameras.intrinsics.project(cameras.to_camera(points.expand(len(cameras.rotation), -1, -1)))


def test_points_are_recovered_without_views_of_zero_weight():
    cameras = ring()
    pixels, weight = seen(cameras, POINTS), torch.ones(4, 12, dtype=torch.float64)
    found = triangulate(cameras, pixels, weight)
    torch.testing.assert_close(found, POINTS, atol=1e-9, rtol=0)
    assert reprojection_error(cameras, found, pixels).max() < 1e-6
    pixels[2] += 300
    weight[2] = 0
    torch.testing.assert_close(triangulate(cameras, pixels, weight), POINTS, atol=1e-9, rtol=0)


def test_wrong_and_absent_views_are_left_out():
    cameras = ring()
    pixels, ones = seen(cameras, POINTS), torch.ones(4, 12, dtype=torch.float64)
    pixels[3, 5] += 120
    found, errors = triangulate_best_views(cameras, pixels, ones, torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(found, POINTS, atol=1e-9, rtol=0)
    assert errors[3, 5].isnan()
    assert errors.isnan().sum() == 1
    found, errors = triangulate_best_views(cameras, pixels, ones, torch.tensor([True, True, True, False]))
    torch.testing.assert_close(found, POINTS, atol=1e-9, rtol=0)
    assert errors[3].isnan().all()


def test_people_are_matched_in_any_order():
    cameras = ring()
    people = [POINTS + torch.tensor([shift, 0.0, 0.0]) for shift in (-0.8, 0.9)]
    views = []
    for view in range(4):
        order = (0, 1) if view % 2 else (1, 0)
        pixels = torch.stack([seen(cameras, people[person])[view] for person in order])
        views.append(torch.cat([pixels, torch.ones(2, 12, 1, dtype=torch.float64)], -1))
    views[3] = views[3][:1]
    groups = associate(cameras, views)
    assert len(groups) == 2
    found = sorted(tuple(group.tolist()) for group in groups)
    assert found == [(0, 1, 0, -1), (1, 0, 1, 0)]


def test_unrelated_detections_are_not_a_person():
    cameras = ring()
    views = []
    for view in range(4):
        pixels = torch.rand(1, 12, 2, generator=GENERATOR, dtype=torch.float64) * 1000
        views.append(torch.cat([pixels + 400 * view, torch.ones(1, 12, 1, dtype=torch.float64)], -1))
    assert associate(cameras, views) == []
