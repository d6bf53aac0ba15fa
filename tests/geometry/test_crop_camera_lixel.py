"""Properties of crops, cameras, lixels and alignment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from i2l_meshnet.geometry.alignment import similarity_align
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, box_from_points, warp_image
from i2l_meshnet.geometry.lixel import LixelGrid, gaussian, soft_argmax


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CAMERA = Camera(torch.tensor([1100.0, 1150]).double(), torch.tensor([320.0, 200]).double())


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-200, 800),
    st.floats(-200, 500),
    st.floats(20, 600),
    st.floats(0.75, 1.25),
    st.floats(-3, 3),
    st.booleans(),
)
def test_crop_and_image_coordinates_are_inverse(
    x: float, y: float, size: float, scale: float, rotation: float, mirrored: bool
) -> None:
    box = torch.tensor([x, y, size, size], dtype=torch.float64)
    crop = Crop.around(box, (256, 256), margin=scale, rotation=rotation, mirrored=mirrored)
    points = normal(7, 2) * 100
    torch.testing.assert_close(crop.to_image(crop.to_crop(points)), points, atol=1e-8, rtol=0)
    image_center = (box[:2] + box[2:] / 2)[None]
    torch.testing.assert_close(crop.to_crop(image_center), torch.tensor([[128.0, 128]]).double(), atol=1e-8, rtol=0)


def test_a_mirrored_crop_shows_the_mirror_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    box = torch.tensor([10.0, 12, 30, 30], dtype=torch.float64)
    mirrored = Crop.around(box, (32, 32), margin=1.0, rotation=0.3, mirrored=True)
    # The published code flips the image and crops about the flipped centre; our affine map includes the flip.
    flipped_box = torch.tensor([80 - 1 - 25.0 - 15, 12, 30, 30], dtype=torch.float64)
    plain = Crop.around(flipped_box, (32, 32), margin=1.0, rotation=0.3)
    points = normal(5, 2) * 20
    flipped = torch.stack([79 - points[:, 0], points[:, 1]], -1)
    torch.testing.assert_close(mirrored.to_crop(points), plain.to_crop(flipped), atol=1e-9, rtol=0)
    expected = warp_image(np.ascontiguousarray(image[:, ::-1]), plain.affine, (32, 32)).astype(int)
    got = warp_image(image, mirrored.affine, (32, 32)).astype(int)
    assert np.abs(got - expected).mean() < 3  # OpenCV rounds source coordinates to 1/32 pixel.


def test_crops_of_a_batch_equal_single_crops() -> None:
    boxes = torch.tensor([[10.0, 20, 50, 50], [-5, 0, 80, 90]]).double()
    margins, angles, mirrored = [1.0, 1.2], [0.0, 0.5], [True, False]
    batch = Crop.around(
        boxes,
        (256, 192),
        margin=torch.tensor(margins, dtype=torch.float64),
        rotation=torch.tensor(angles, dtype=torch.float64),
        mirrored=torch.tensor(mirrored),
    )
    for i in range(2):
        single = Crop.around(boxes[i], (256, 192), margin=margins[i], rotation=angles[i], mirrored=mirrored[i])
        torch.testing.assert_close(batch.affine[i], single.affine)
        assert bool(batch[i].mirrored) == mirrored[i]


@pytest.mark.parametrize(
    ("size", "clip_to", "height"),
    [
        ((80.0, 200.0), None, 200),
        ((300.0, 40.0), None, 400),
        ((80.0, 200.0), (640, 480), 199),
        ((80.0, 200.0), (640, 150), 79 / 0.75),
        ((301.0, 81.0), (640, 480), 300 / 0.75),
    ],
)
def test_a_crop_contains_the_box_with_its_margin(
    size: tuple[float, float], clip_to: tuple[int, int] | None, height: float
) -> None:
    """The box is widened to the aspect of the crop; a clipped box is one pixel smaller, by the published rule."""
    box = torch.tensor([100.0, 50, *size])
    crop = Crop.around(box, (256, 192), margin=1.5, clip_to=clip_to)
    torch.testing.assert_close(crop.affine[:, :2], torch.eye(2) * 256 / (1.5 * height))
    if clip_to is None:
        torch.testing.assert_close(crop.to_crop((box[:2] + box[2:] / 2)[None]), torch.tensor([[96.0, 128]]))


@pytest.mark.parametrize(
    ("box", "clip_to"),
    [([700.0, 50, 80, 200], (640, 480)), ([10.0, 50, 0, 200], (640, 480)), ([10.0, 50, 0, 200], None)],
)
def test_a_crop_needs_a_box_with_an_area_in_the_image(box: list[float], clip_to: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match="no area"):
        Crop.around(torch.tensor([box, [10.0, 50, 10, 10]]), (256, 256), clip_to=clip_to)


def test_a_box_needs_a_point() -> None:
    points = torch.tensor([[1.0, 2], [5, 10], [100, 100]])
    box = box_from_points(points, torch.tensor([True, True, False]), margin=1.5)
    assert box.tolist() == [0, 0, 6, 12]
    with pytest.raises(ValueError, match="valid"):
        box_from_points(points, torch.zeros(3, dtype=torch.bool))


def test_a_field_of_view_spans_the_longer_side() -> None:
    camera = Camera.from_field_of_view(641, 321, 90.0)
    assert camera.focal.tolist() == pytest.approx([320.5, 320.5])
    assert camera.center.tolist() == [320, 160]
    with pytest.raises(ValueError, match="degrees"):
        Camera.from_field_of_view(10, 10, 180.0)


def test_the_grids_ends_are_the_crops_borders() -> None:
    grid = LixelGrid(crop_size=(256, 192))
    pixels = torch.tensor([[0.0, 0], [192, 256], [96, 128]])
    lixels = grid.encode(pixels, torch.tensor([-1.0, 1, 0]))
    assert lixels.tolist() == [[0, 0, 0], [64, 64, 64], [32, 32, 32]]
    wider = LixelGrid(crop_size=(256, 192), margin=0.25).encode(pixels, torch.tensor([-1.0, 1, 0]))
    torch.testing.assert_close(wider[:, 0], torch.tensor([64 / 6, 64 * 5 / 6, 32]))


def test_alignment_does_not_reflect() -> None:
    source = normal(10, 3)
    image = source * torch.tensor([-1.0, 1, 1]).double()
    assert (similarity_align(source, image) - image).norm(dim=-1).mean() > 0.1


def test_alignment_of_a_point_set_without_extent_gives_the_targets_centre() -> None:
    target = normal(10, 3)
    aligned = similarity_align(torch.zeros(10, 3).double(), target)
    torch.testing.assert_close(aligned, target.mean(0).expand(10, 3), atol=1e-9, rtol=0)


def test_soft_argmax_decodes_a_gaussian() -> None:
    center = torch.tensor([20.0, 31.5, 40.25]).double()
    heat = gaussian(center, 64)
    assert heat[0, 20] == 1
    for offset in (0, 7):
        torch.testing.assert_close(soft_argmax(heat.log() + offset), center, atol=1e-6, rtol=0)


GRIDS = [
    LixelGrid(),
    LixelGrid(depth_extent=0.3),
    LixelGrid((32, 64, 48), (256, 192), 2.4, margin=0.125),
    LixelGrid((32, 64, 48), (256, 192), 2.4, margin=0.5, depth_axis="crop"),
]
BOXES = torch.tensor([[20.0, 30, 150, 200], [224, 72, 192, 256], [800, 500, 192, 256]]).double()
"""The second box is centred on the principal point of `CAMERA`."""


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_lixels_and_camera_points_convert_in_both_directions(grid: LixelGrid, mirrored: bool) -> None:
    """In a batch. `to_camera` equals its steps, and points keep their pixels."""
    crop = Crop.around(BOXES, grid.crop_size, margin=1.0, rotation=0.4, mirrored=mirrored)
    camera = CAMERA.map(lambda values: values.expand(3, 2))
    points = 0.4 * normal(3, 20, 3) + torch.tensor([0.0, 0, 5]).double()
    depth = points[:, 0, 2]
    lixels = grid.from_camera(points, crop, camera, depth)
    torch.testing.assert_close(grid.to_camera(lixels, crop, camera, depth), points, atol=1e-9, rtol=0)
    pixels, along = grid.decode(lixels)
    torch.testing.assert_close(crop.to_image(pixels), camera.project(points), atol=1e-8, rtol=0)
    axis = grid.view_rotation(crop, camera)[..., 2]
    rays = camera.backproject(crop.to_image(pixels), torch.ones_like(along))
    scale = (along + (depth / axis[:, 2])[:, None]) / (rays @ axis[..., None])[..., 0]
    torch.testing.assert_close(rays * scale[..., None], points, atol=1e-9, rtol=0)
    alone = grid.to_camera(lixels[1], crop[1], camera[1], depth[1])
    torch.testing.assert_close(alone, points[1], atol=1e-9, rtol=0)


def test_the_view_rotation_takes_the_camera_axis_to_the_crop() -> None:
    grid = GRIDS[-1]
    crop = Crop.around(BOXES, grid.crop_size, margin=1.0)
    camera = CAMERA.map(lambda values: values.expand(3, 2))
    rotation = grid.view_rotation(crop, camera)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(3, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3).double())
    torch.testing.assert_close(rotation[1], torch.eye(3).double())
    seen = camera.project(rotation[:, None, :, 2])[:, 0]
    torch.testing.assert_close(seen, BOXES[:, :2] + BOXES[:, 2:] / 2)
    # A body that is rotated about the camera centre together with its crop keeps its depths.
    points = 0.4 * normal(3, 20, 3) + torch.tensor([0.0, 0, 4]).double()
    moved = points @ rotation.mT
    depth = (moved[:, 0] * rotation[..., 2]).sum(-1) * rotation[:, 2, 2]
    _, found = grid.decode(grid.from_camera(moved, crop, camera, depth))
    torch.testing.assert_close(found, points[..., 2] - points[:, :1, 2])
