"""Boxes, crops, cameras and alignment: comparison with the published code (goldens/geometry.npz)."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from i2l_meshnet.geometry.alignment import rigid_motion, similarity_align
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, box_from_points, invert_affine, published_boxes
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.skeletons import COCO, HUMAN36M, MUCO, SMPL, Skeleton


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, Tensor]:
    with np.load(goldens / "geometry.npz") as archive:
        return {key.removeprefix("f64/"): torch.from_numpy(archive[key]) for key in archive.files}


def test_boxes_are_prepared_as_published(golden: dict[str, Tensor]) -> None:
    # float64 arithmetic in both.
    rejected = golden["process_bbox_none"]
    assert 0 < rejected.sum() < len(rejected)
    got, valid = published_boxes(golden["process_bbox_in"], torch.tensor([640, 392]))
    assert torch.equal(valid, rejected == 0)
    torch.testing.assert_close(got[valid], golden["process_bbox_out"][valid], atol=1e-9, rtol=0)


def test_boxes_of_joints_are_the_published_ones(golden: dict[str, Tensor]) -> None:
    # The published boxes are float32 numbers up to 1,000 px.
    for joints, valid, expected in zip(
        golden["get_bbox_joint"], golden["get_bbox_valid"], golden["get_bbox_out"], strict=True
    ):
        got = box_from_points(joints[:, :2], valid == 1)
        torch.testing.assert_close(got, expected.double(), atol=2e-4, rtol=0)


def test_crop_affines_are_the_published_ones(golden: dict[str, Tensor]) -> None:
    for row, forward, inverse in zip(golden["trans_args"], golden["trans_fwd"], golden["trans_inv"], strict=True):
        x, y, w, h, crop_width, crop_height, scale, degrees = row.tolist()
        box = torch.tensor([x - w / 2, y - h / 2, w, h], dtype=torch.float64)
        size = (int(crop_height), int(crop_width))
        crop = Crop.around(box, size, margin=scale, rotation=math.radians(degrees), stretch=True)
        # The published affine comes from float32 points through OpenCV's solver.
        torch.testing.assert_close(crop.affine, forward.double(), atol=2e-3, rtol=2e-6)
        torch.testing.assert_close(invert_affine(crop.affine), inverse.double(), atol=2e-3, rtol=2e-6)


def test_projection_is_the_published_one(golden: dict[str, Tensor]) -> None:
    # cam2pixel keeps z as a third coordinate.
    camera = Camera(golden["cam_f"], golden["cam_c"])
    torch.testing.assert_close(camera.project(golden["cam_X"]), golden["cam2pixel"][:, :2], atol=1e-9, rtol=0)
    back = camera.backproject(golden["cam2pixel"][:, :2], golden["cam2pixel"][:, 2])
    torch.testing.assert_close(back, golden["pixel2cam"], atol=1e-9, rtol=0)


def test_rigid_motion_finds_the_rotation_and_translation() -> None:
    generator = torch.Generator().manual_seed(0)
    points, angles, shift = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 12, 3), (5, 3), (5, 3))
    )
    rotation = axis_angle_to_matrix(angles)
    found, translation = rigid_motion(points, points @ rotation.mT + shift[:, None])
    torch.testing.assert_close(found, rotation)
    torch.testing.assert_close(translation, shift)


def test_rigid_alignment_is_the_published_one(golden: dict[str, Tensor]) -> None:
    # Among the ten pairs are reflected (7, 8) and planar (9) ones.
    got = similarity_align(golden["ra_A"], golden["ra_B"])
    torch.testing.assert_close(got, golden["ra_out"], atol=1e-9, rtol=1e-12)


@pytest.mark.parametrize(
    ("key", "source", "target"),
    [
        ("to_smpl_h36m", HUMAN36M, SMPL),
        ("to_smpl_muco", MUCO, SMPL),
        ("to_smpl_coco", COCO, SMPL),
        ("to_h36m_muco", MUCO, HUMAN36M),
    ],
)
def test_joint_sets_map_as_published(golden: dict[str, Tensor], key: str, source: Skeleton, target: Skeleton) -> None:
    joints = 1.0 + torch.arange(3 * len(source)).reshape(-1, 3)
    mapped = torch.zeros(len(target), 3)
    for here, there in source.remap_to(target):
        mapped[there] = joints[here]
    assert torch.equal(mapped, golden[key])


def test_a_crop_rotates_points_like_the_published_function(golden: dict[str, Tensor]) -> None:
    """The published `rotate_2d` rotates the sides of a crop."""
    for angle, expected in zip(
        torch.linspace(-3, 3, 7, dtype=torch.float64), golden["rotate_2d"].double(), strict=True
    ):
        crop = Crop.around(torch.tensor([-1.0, -1, 2, 2]).double(), (2, 2), margin=1.0, rotation=float(angle))
        point = torch.tensor([[3.0, 4.0]]).double() + 1
        torch.testing.assert_close(crop.to_image(point)[0], expected, atol=1e-6, rtol=0)
