"""Depth counted along the line of sight to the crop's centre."""

import dataclasses

import pytest
import torch

from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.lixel import LixelGrid

GRID = LixelGrid(crop_size=(256, 192), depth_extent=2.4, margin=0.5, depth_axis="crop")
CAMERA = Camera(torch.tensor([900.0, 880.0]).double(), torch.tensor([500.0, 400.0]).double())
BOXES = torch.tensor([[20.0, 30, 150, 200], [440, 272, 192, 256], [800, 500, 192, 256]]).double()


@pytest.fixture
def points() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 20, 3, generator=generator).double() * 0.4 + torch.tensor([0.0, 0, 4]).double()


def cameras(n: int) -> Camera:
    return CAMERA.map(lambda values: values.expand(n, 2))


def test_there_and_back(points: torch.Tensor):
    crop, depth = Crop.around(BOXES, GRID.crop_size, margin=1.0), points[:, 0, 2]
    lixels = GRID.from_camera(points, crop, cameras(3), depth)
    torch.testing.assert_close(GRID.to_camera(lixels, crop, cameras(3), depth), points)


def test_points_stay_on_their_pixels(points: torch.Tensor):
    crop = Crop.around(BOXES, GRID.crop_size, margin=1.0)
    lixels = GRID.from_camera(points, crop, cameras(3), points[:, 0, 2])
    torch.testing.assert_close(crop.to_image(GRID.decode(lixels)[0]), cameras(3).project(points))


def test_rotation_takes_the_axis_to_the_crop():
    crop = Crop.around(BOXES, GRID.crop_size, margin=1.0)
    turn = GRID.view_rotation(crop, cameras(3))
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).double().expand(3, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(3).double())
    seen = cameras(3).project(turn[:, None, :, 2])[:, 0]
    torch.testing.assert_close(seen, BOXES[:, :2] + BOXES[:, 2:] / 2)


def test_a_crop_on_the_axis_is_as_with_the_camera_s_depth(points: torch.Tensor):
    box = torch.tensor([[500.0 - 96, 400.0 - 128, 192, 256]]).double()
    crop, depth = Crop.around(box, GRID.crop_size, margin=1.0), points[:1, 0, 2]
    plain = dataclasses.replace(GRID, depth_axis="camera")
    torch.testing.assert_close(
        GRID.from_camera(points[:1], crop, cameras(1), depth), plain.from_camera(points[:1], crop, cameras(1), depth)
    )


def test_what_the_network_sees_does_not_depend_on_the_place_in_the_picture(points: torch.Tensor):
    """A body turned about the camera's centre together with its crop's direction keeps its depths."""
    crop = Crop.around(BOXES, GRID.crop_size, margin=1.0)
    turn = GRID.view_rotation(crop, cameras(3))
    moved = points @ turn.mT
    depth = (moved[:, 0] * turn[..., 2]).sum(-1) * turn[:, 2, 2]
    _, found = GRID.decode(GRID.from_camera(moved, crop, cameras(3), depth))
    torch.testing.assert_close(found, points[..., 2] - points[:, :1, 2])
