"""Crops, cameras, lixels and alignment by their properties."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from i2l_meshnet.geometry.alignment import similarity_align
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, box_from_points, invert_affine, warp_image
from i2l_meshnet.geometry.lixel import LixelGrid, gaussian, soft_argmax
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix


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
    # The published code flips the picture, then crops about the flipped centre; the flip is part of our affine.
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
    scale, rotation = torch.tensor([1.0, 1.2]).double(), torch.tensor([0.0, 0.5]).double()
    mirrored = torch.tensor([True, False])
    batch = Crop.around(boxes, (256, 192), margin=scale, rotation=rotation, mirrored=mirrored)
    for i in range(2):
        single = Crop.around(
            boxes[i], (256, 192), margin=float(scale[i]), rotation=float(rotation[i]), mirrored=bool(mirrored[i])
        )
        torch.testing.assert_close(batch.affine[i], single.affine)
        assert bool(single.mirrored) == bool(mirrored[i])


def test_the_crop_is_filled_from_the_box() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:60, 30:70] = 200
    crop = Crop.around(torch.tensor([30.0, 20, 40, 40]), (64, 64), margin=1.0)
    patch = warp_image(image, crop.affine, (64, 64))
    assert patch[4:-4, 4:-4].min() == 200
    wide = Crop.around(torch.tensor([-1000.0, -1000, 40, 40]), (64, 64))
    assert warp_image(image, wide.affine, (64, 64)).max() == 0


@pytest.mark.parametrize(
    ("size", "clip_to", "height"),
    [
        ((80.0, 200.0), None, 200),
        ((80.0, 200.0), (640, 480), 199),
        ((80.0, 200.0), (640, 150), 79 / 0.75),
        ((301.0, 81.0), (640, 480), 300 / 0.75),
    ],
)
def test_crops_have_the_aspect_of_their_size(
    size: tuple[float, float], clip_to: tuple[int, int] | None, height: float
) -> None:
    crop = Crop.around(torch.tensor([100.0, 50, *size]), (256, 192), clip_to=clip_to)
    zoom = 256 / (1.25 * height)
    torch.testing.assert_close(crop.affine[:, :2], zoom * torch.eye(2))


@pytest.mark.parametrize("box", [[700.0, 50, 80, 200], [10.0, 50, 0, 200]])
def test_a_crop_needs_a_box_with_an_area_in_the_image(box: list[float]) -> None:
    with pytest.raises(ValueError, match="no area"):
        Crop.around(torch.tensor(box), (256, 256), clip_to=(640, 480))


def test_a_crop_needs_a_box_with_an_area() -> None:
    with pytest.raises(ValueError, match="no area"):
        Crop.around(torch.tensor([[10.0, 50, 10, 10], [10, 50, 0, 200]]), (256, 256))


@pytest.mark.parametrize(("size", "height"), [((40.0, 200.0), 200.0), ((300.0, 40.0), 400.0)])
def test_an_unclipped_crop_has_the_whole_box_with_its_margin(size: tuple[float, float], height: float) -> None:
    box = torch.tensor([-70.0, 20, *size], dtype=torch.float64)
    crop = Crop.around(box, (256, 192), margin=1.5)
    torch.testing.assert_close(crop.affine[:, :2], torch.eye(2).double() * 256 / (1.5 * height))
    middle = torch.tensor([[96.0, 128.0]]).double()
    torch.testing.assert_close(crop.to_crop((box[:2] + box[2:] / 2)[None]), middle)


def test_a_box_needs_a_point() -> None:
    points = torch.tensor([[1.0, 2], [5, 10], [100, 100]])
    box = box_from_points(points, torch.tensor([True, True, False]), margin=1.5)
    assert box.tolist() == [0, 0, 6, 12]
    with pytest.raises(ValueError, match="valid"):
        box_from_points(points, torch.zeros(3, dtype=torch.bool))


def test_affines_and_their_inverses_cancel() -> None:
    affine = normal(4, 2, 3)
    bottom = torch.tensor([0.0, 0, 1]).double().expand(4, 1, 3)
    product = torch.cat([affine, bottom], 1) @ torch.cat([invert_affine(affine), bottom], 1)
    torch.testing.assert_close(product, torch.eye(3).double().expand(4, 3, 3), atol=1e-9, rtol=0)


def test_projection_and_backprojection_are_inverse() -> None:
    points = normal(3, 9, 3) + torch.tensor([0.0, 0, 5]).double()
    pixels = CAMERA.project(points)
    torch.testing.assert_close(CAMERA.backproject(pixels, points[..., 2]), points, atol=1e-12, rtol=0)


def test_a_field_of_view_spans_the_longer_side() -> None:
    camera = Camera.from_field_of_view(641, 321, 90.0)
    assert camera.focal.tolist() == pytest.approx([320.5, 320.5])
    assert camera.center.tolist() == [320, 160]
    with pytest.raises(ValueError, match="degrees"):
        Camera.from_field_of_view(10, 10, 180.0)


@pytest.mark.parametrize(
    "grid", [LixelGrid(), LixelGrid((32, 64, 48), (256, 192), 2.4, margin=0.125), LixelGrid(depth_extent=0.3)]
)
def test_lixels_and_camera_points_are_inverse(grid: LixelGrid) -> None:
    box = torch.tensor([200.0, 100, 150, 200]).double()
    crop = Crop.around(box, grid.crop_size, margin=1.0, rotation=0.4, mirrored=True)
    depth = torch.tensor(5.0).double()
    points = 0.1 * normal(11, 3) + torch.stack([torch.zeros(()).double(), torch.zeros(()).double(), depth])
    lixels = grid.from_camera(points, crop, CAMERA, depth)
    torch.testing.assert_close(grid.to_camera(lixels, crop, CAMERA, depth), points, atol=1e-9, rtol=0)


def test_the_grids_ends_are_the_crops_borders() -> None:
    grid = LixelGrid(crop_size=(256, 192))
    pixels = torch.tensor([[0.0, 0], [192, 256], [96, 128]])
    lixels = grid.encode(pixels, torch.tensor([-1.0, 1, 0]))
    assert lixels.tolist() == [[0, 0, 0], [64, 64, 64], [32, 32, 32]]
    wider = LixelGrid(crop_size=(256, 192), margin=0.25).encode(pixels, torch.tensor([-1.0, 1, 0]))
    torch.testing.assert_close(wider[:, 0], torch.tensor([64 / 6, 64 * 5 / 6, 32]))


def test_a_batch_of_grids_decodes_sample_by_sample() -> None:
    grid = LixelGrid()
    crops = Crop.around(torch.tensor([[0.0, 0, 50, 50], [9, 9, 90, 90]]).double(), (256, 256))
    cameras = Camera(torch.tensor([[500.0, 500], [900, 800]]).double(), torch.tensor([[50.0, 50], [40, 60]]).double())
    lixels, depth = 32 + 5 * normal(2, 6, 3), torch.tensor([3.0, 6]).double()
    together = grid.to_camera(lixels, crops, cameras, depth)
    for i in range(2):
        alone = grid.to_camera(lixels[i], crops[i], cameras[i], depth[i])
        torch.testing.assert_close(together[i], alone, atol=1e-12, rtol=0)
    assert isinstance(crops[0], Crop)


def test_soft_argmax_reads_what_a_gaussian_writes() -> None:
    center = torch.tensor([20.0, 31.5, 40.25]).double()
    heat = gaussian(center, 64)
    torch.testing.assert_close(soft_argmax(heat.log()), center, atol=1e-6, rtol=0)
    assert torch.allclose(heat[0, 20], torch.ones(()).double())
    shifted = soft_argmax(heat.log() + 7)
    torch.testing.assert_close(shifted, center, atol=1e-6, rtol=0)


def test_alignment_undoes_any_similarity() -> None:
    source = normal(4, 10, 3)
    turn = axis_angle_to_matrix(normal(4, 3, seed=1))
    moved = 2.5 * source @ turn.transpose(-1, -2) + normal(4, 1, 3, seed=2)
    torch.testing.assert_close(similarity_align(source, moved), moved, atol=1e-9, rtol=0)


def test_alignment_does_not_reflect() -> None:
    source = normal(10, 3)
    image = source * torch.tensor([-1.0, 1, 1]).double()
    assert (similarity_align(source, image) - image).norm(dim=-1).mean() > 0.1


def test_alignment_of_a_point_set_without_extent_gives_the_targets_centre() -> None:
    target = normal(10, 3)
    aligned = similarity_align(torch.zeros(10, 3).double(), target)
    torch.testing.assert_close(aligned, target.mean(0).expand(10, 3), atol=1e-9, rtol=0)


@pytest.mark.parametrize("depth_axis", ["camera", "crop"])
def test_the_decoder_does_what_its_steps_do_one_after_the_other(depth_axis: Literal["camera", "crop"]) -> None:
    grid = LixelGrid((32, 64, 48), (256, 192), 2.4, margin=0.125, depth_axis=depth_axis)
    crop = Crop.around(torch.tensor([200.0, 100, 150, 200]).double(), grid.crop_size, rotation=0.4)
    lixels, root_depth = 24 + 9 * normal(11, 3), torch.tensor(5.0).double()
    pixels, along = grid.decode(lixels)
    axis = grid.view_rotation(crop, CAMERA)[:, 2]
    rays = CAMERA.backproject(crop.to_image(pixels), torch.ones_like(along))
    points = rays * ((along + root_depth / axis[2]) / (rays @ axis))[:, None]
    torch.testing.assert_close(grid.to_camera(lixels, crop, CAMERA, root_depth), points, atol=1e-12, rtol=0)
