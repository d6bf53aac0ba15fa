"""Samples: the same for any number of workers, decoded no further than needed, mirrored and batched consistently."""

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.augmentation import Augmentation
from i2l_meshnet.data.dataset import PersonDataset, Sample, collate, cut_crop
from i2l_meshnet.data.sources import Source, open_source
from i2l_meshnet.data.targets import Target, TargetBuilder
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.crop import Crop, published_boxes
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.tensors import TensorDataclass

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def source(dataset_root: Path) -> Source:
    return open_source("Human36M", dataset_root, "train")


def assert_same(first: TensorDataclass, second: TensorDataclass) -> None:
    for field in dataclasses.fields(first):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if isinstance(ours, TensorDataclass):
            assert_same(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_a_sample_depends_on_seed_epoch_and_index_only(source: Source) -> None:
    dataset = PersonDataset(source, augment=True, seed=3)
    assert_same(dataset[2], PersonDataset(source, augment=True, seed=3)[2])
    assert dataset.augmentation(0, 2) != dataset.augmentation(1, 2)
    assert dataset.augmentation(0, 2) != PersonDataset(source, augment=True, seed=4).augmentation(0, 2)
    later = dataset[2 + len(dataset)]
    assert torch.equal(later.annotation.id, dataset[2].annotation.id)
    assert not torch.equal(later.colour, dataset[2].colour)


def test_workers_do_not_change_samples(source: Source) -> None:
    dataset = PersonDataset(source, augment=True, seed=1)
    alone, shared = (
        list(DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=collate)) for workers in (0, 2)
    )
    for ours, theirs in zip(alone, shared, strict=True):
        assert_same(ours, theirs)


def test_a_batch_is_its_samples_bit_for_bit(source: Source) -> None:
    dataset = PersonDataset(source, augment=True, seed=1)
    positions = [4, 0, 9, 2, 7]
    assert_same(dataset.batch(positions), collate([dataset[position] for position in positions]))


def test_hands_are_never_mirrored(source: Source) -> None:
    dataset = PersonDataset(source, augment=True, mirror=False)
    assert not any(dataset.augmentation(epoch, 0).mirrored for epoch in range(50))


def test_fits_of_another_body_are_dropped(source: Source) -> None:
    fit = PersonDataset(source, fit_size=(36, 6))[0].annotation.fit
    assert fit.pose.shape == (36, 3)
    assert fit.shape.shape == (6,)
    assert not bool(fit.known)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_reduced_decoding_gives_the_crop_of_the_whole_picture(factor: int, tmp_path: Path) -> None:
    """A smooth picture: no detail is lost by decoding less, so the crops agree but for JPEG's own rounding."""
    side = 256 * factor
    y, x = np.mgrid[0 : side + 37, 0 : side + 52].astype(np.float32) / side
    picture = np.stack([128 + 90 * np.sin(20 * x + 12 * y), 255 * x * (1 - y / 2), 128 + 100 * np.cos(28 * y)], -1)
    path = tmp_path / "smooth.jpg"
    cv2.imwrite(str(path), picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])
    size = (side + 52, side + 37)
    box = torch.tensor([20.3, 11.8, side, side], dtype=torch.float64)
    change = Augmentation(1.0, math.radians(17), mirrored=True)
    crop = Crop.around(box, (256, 256), margin=1.0, rotation=change.rotation, mirrored=change.mirrored)
    reduced, whole = (cut_crop(path, crop.affine, size, full_decode=full) for full in (False, True))
    inside = whole.min(0) > 0
    error = np.abs(reduced.astype(int) - whole)[:, inside]
    assert error.mean() < 1
    # A shift of a quarter of a pixel would show as several grey levels here; the picture's border may differ more.
    assert np.percentile(error, 99) <= 3
    if factor == 1:
        np.testing.assert_array_equal(reduced, whole)


@pytest.mark.parametrize("name", ["standing_garden.jpg", "standing_phone.jpg"])
def test_on_photographs_reduced_decoding_is_nearer_to_the_area_mean(name: str) -> None:
    """The stated tolerance: 4 by 4 pixel means of the two crops differ by less than 3 grey levels in the mean."""
    path = EXAMPLES / name
    picture = cv2.imread(str(path))
    assert picture is not None
    height, width = picture.shape[:2]
    side = min(height, width) // 256 * 256
    assert side >= 512
    box = torch.tensor([0, 0, side, side], dtype=torch.float64)
    affine = Crop.around(box, (256, 256), margin=1.0).affine
    reduced, whole = (cut_crop(path, affine, (width, height), full_decode=full) for full in (False, True))
    ideal = cv2.resize(picture[:side, :side, ::-1], (256, 256), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.abs(first.astype(np.float64) - second).mean())

    def blocks(crop: np.ndarray) -> np.ndarray:
        return crop.reshape(3, 64, 4, 64, 4).astype(np.float64).mean((2, 4))

    assert distance(reduced, ideal) <= distance(whole, ideal)
    assert distance(blocks(reduced), blocks(whole)) < 3


def test_pictures_that_are_gone_damaged_or_of_another_size(tmp_path: Path) -> None:
    affine = Crop.around(torch.tensor([0, 0, 50, 50], dtype=torch.float64), (256, 256)).affine
    with pytest.raises(FileError, match=r"a\.jpg"):
        cut_crop(tmp_path / "a.jpg", affine, (100, 100))
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xffnothing")
    with pytest.raises(FileError, match=r"a\.jpg"):
        cut_crop(tmp_path / "a.jpg", affine, (100, 100))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(FileError, match=r"b\.png .*60 by 40 .*100 by 100"):
        cut_crop(tmp_path / "b.png", affine, (100, 100))


def batch_of(dataset: PersonDataset) -> Sample:
    return collate([dataset[index] for index in range(len(dataset))])


@pytest.fixture(scope="module")
def body(body_directory: Path) -> Body:
    return load_body("smpl", body_directory)


def builder(source: Source, body: Body) -> TargetBuilder:
    return TargetBuilder([body], LixelGrid(), source.table.skeleton)


def test_a_batch_has_the_targets_of_its_samples(source: Source, body: Body) -> None:
    """float32 sums in another order: lixels to 1e-4."""
    dataset, build = PersonDataset(source, augment=True, seed=5), builder(source, body)
    whole = build(batch_of(dataset))
    for index in range(len(dataset)):
        single: Target = build(collate([dataset[index]]))
        for name in ("joints", "fit_joints", "fit_vertices", "camera_joints", "fit_camera_joints"):
            torch.testing.assert_close(
                getattr(single, name).points[0], getattr(whole, name).points[index], atol=1e-4, rtol=0
            )
            torch.testing.assert_close(getattr(single, name).weight[0], getattr(whole, name).weight[index])


def test_joints_land_where_the_picture_shows_them(tmp_path: Path, source: Source, body: Body) -> None:
    """A dot painted at each joint is at the joint's lixel, whatever the change; left and right keep their names."""
    table = source.table
    arrays = {**table.arrays}
    marked = tmp_path / table.image_path(0)
    marked.parent.mkdir(parents=True)
    picture = np.zeros((500, 480, 3), np.uint8)
    arrays["joints_image"] = np.array(arrays["joints_image"])
    spots = np.stack([170 + 8.0 * np.arange(17), 200 + 60 * np.sin(np.arange(17.0))], -1).round()
    arrays["joints_image"][0] = spots
    for number, (column, row) in enumerate(spots.astype(int)):
        cv2.circle(picture, (int(column), int(row)), 3, (40 + 12 * number,) * 3, -1)
    cv2.imwrite(str(marked.with_suffix(".png")), picture)
    arrays["paths"] = np.frombuffer(table.image_path(0).replace(".jpg", ".png").encode(), np.uint8)
    moved = dataclasses.replace(source, folder=tmp_path, table=dataclasses.replace(table, arrays=arrays))
    names, mirror = table.skeleton.joints, table.skeleton.mirror_permutation
    for change in (Augmentation(), Augmentation(0.9, 0.5), Augmentation(1.1, -0.3, mirrored=True)):
        dataset = PersonDataset(moved, draw=lambda epoch, index, change=change: change)
        batch = collate([dataset[0]])
        target = builder(moved, body)(batch)
        for number, name in enumerate(names):
            if name not in body.skeleton.joints:
                continue
            row = body.skeleton.index(name)
            x, y = (target.joints.points[0, row, :2] * 4).round().int().tolist()
            painted = mirror[number] if change.mirrored else number
            shown = batch.image[0, :, y, x].tolist()
            assert shown == pytest.approx([40 + 12 * painted] * 3, abs=14), (name, change)


def test_mirroring_twice_is_the_identity(source: Source, body: Body) -> None:
    """Targets of a mirrored sample, mirrored back in the crop, are the plain ones where the camera is centred."""
    arrays = {**source.table.arrays}
    size = arrays["image_size"]
    arrays["center"] = ((size - 1) / 2).astype(np.float32)
    centred = dataclasses.replace(source, table=dataclasses.replace(source.table, arrays=arrays))
    build = builder(centred, body)
    plain, mirrored = (
        build(batch_of(PersonDataset(centred, draw=lambda epoch, index, flip=flip: Augmentation(mirrored=flip))))
        for flip in (False, True)
    )
    joints = body.skeleton
    order = list(joints.mirror_permutation)
    back = mirrored.joints.points[:, order] * torch.tensor([-1, 1, 1]) + torch.tensor([64.0, 0, 0])
    weight = plain.joints.weight * mirrored.joints.weight[:, order]
    torch.testing.assert_close(back * weight, plain.joints.points * weight, atol=1e-3, rtol=0)
    # The root of the mirrored body lies at the mirrored place; its depth is kept.
    root = joints.root_index
    known = plain.params_weight > 0
    there, here = mirrored.fit_joints.points[known, root], plain.fit_joints.points[known, root]
    torch.testing.assert_close(64 - there[:, 0], here[:, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(there[:, 1:], here[:, 1:], atol=1e-3, rtol=0)


def test_boxes_are_prepared_once(source: Source) -> None:
    """RootNet's boxes are taken as they are; the others are widened to the crop's aspect."""
    box = source.table.arrays["box"]
    np.testing.assert_allclose(box[:, 2], box[:, 3])
    given = torch.tensor([208.857, 147.868, 73.268, 226.938], dtype=torch.float64)
    np.testing.assert_array_equal(box[0], published_boxes(given, torch.tensor([480, 500]))[0])
