"""Samples: independent of workers, decoded only as far as needed, mirrored and batched consistently."""

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.augmentation import Augmentation, RandomAugmentation
from i2l_meshnet.data.dataset import PersonDataset, Sample, collate, cut_crop
from i2l_meshnet.data.sources import Source, open_source
from i2l_meshnet.data.targets import Target, TargetBuilder
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.crop import Crop
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
    dataset = PersonDataset(source, draw=RandomAugmentation(3))
    drawn = {RandomAugmentation(seed, number)(epoch, 2) for seed in (3, 4) for number in (0, 1) for epoch in (0, 1)}
    assert len(drawn) == 8
    positions = [4, 0, 9, 2 + len(dataset)]
    batches = [dataset.batch(positions), collate([dataset[position] for position in positions])]
    for workers in (0, 2):
        batches += DataLoader(dataset, batch_size=4, sampler=positions, num_workers=workers, collate_fn=collate)
    for batch in batches[1:]:
        assert_same(batch, batches[0])


def test_hands_are_never_mirrored() -> None:
    assert not any(RandomAugmentation(mirror=False)(epoch, 0).mirrored for epoch in range(50))


def test_fits_of_another_body_are_dropped(source: Source) -> None:
    fit = PersonDataset(source, fit_size=(36, 6))[0].annotation.fit
    assert fit.pose.shape == (36, 3)
    assert fit.shape.shape == (6,)
    assert not bool(fit.known)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_reduced_decoding_gives_the_crop_of_the_whole_picture(factor: int, tmp_path: Path) -> None:
    """A smooth image loses no detail, so the crops differ only by JPEG's rounding."""
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
    # A shift of a quarter of a pixel would be several grey levels here. The border may differ more.
    assert np.percentile(error, 99) <= 3
    if factor == 1:
        np.testing.assert_array_equal(reduced, whole)


def test_on_photographs_reduced_decoding_is_closer_to_the_area_mean() -> None:
    """The stated tolerance: 4 by 4 pixel means of the two crops differ by less than 3 grey levels on average."""
    path = EXAMPLES / "standing_phone.jpg"
    picture = cv2.imread(str(path))
    assert picture is not None
    height, width = picture.shape[:2]
    side = min(height, width) // 256 * 256
    affine = Crop.around(torch.tensor([0, 0, side, side]).double(), (256, 256), margin=1.0).affine
    reduced, whole = (cut_crop(path, affine, (width, height), full_decode=full) for full in (False, True))
    ideal = cv2.resize(picture[:side, :side, ::-1], (256, 256), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    blocks = [crop.reshape(3, 64, 4, 64, 4).astype(np.float64).mean((2, 4)) for crop in (reduced, whole)]
    assert np.abs(reduced - ideal.astype(float)).mean() <= np.abs(whole - ideal.astype(float)).mean()
    assert np.abs(blocks[0] - blocks[1]).mean() < 3


def test_missing_damaged_and_resized_images_are_refused(tmp_path: Path) -> None:
    affine = Crop.around(torch.tensor([0, 0, 50, 50], dtype=torch.float64), (256, 256)).affine
    path = tmp_path / "a.png"
    for content in (None, b"\xff\xd8\xffnothing", cv2.imencode(".png", np.zeros((40, 60, 3), np.uint8))[1].tobytes()):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FileError, match=r"a\.png"):
            cut_crop(path, affine, (100, 100))


def batch_of(dataset: PersonDataset) -> Sample:
    return collate([dataset[index] for index in range(len(dataset))])


@pytest.fixture(scope="module")
def body(body_directory: Path) -> Body:
    return load_body("smpl", body_directory)


def builder(source: Source, body: Body) -> TargetBuilder:
    return TargetBuilder([body], LixelGrid(), source.table.skeleton)


def test_a_batch_has_the_targets_of_its_samples(source: Source, body: Body) -> None:
    """float32 sums in another order: lixels to 1e-4."""
    dataset, build = PersonDataset(source, draw=RandomAugmentation(5)), builder(source, body)
    whole = build(batch_of(dataset))
    for index in range(len(dataset)):
        single: Target = build(collate([dataset[index]]))
        for name in ("joints", "fit_joints", "fit_vertices", "camera_joints", "fit_camera_joints"):
            torch.testing.assert_close(
                getattr(single, name).points[0], getattr(whole, name).points[index], atol=1e-4, rtol=0
            )
            torch.testing.assert_close(getattr(single, name).weight[0], getattr(whole, name).weight[index])


def test_joints_are_where_the_image_shows_them(tmp_path: Path, source: Source, body: Body) -> None:
    """A dot drawn at each joint is at the joint's lixel, for any augmentation. Left and right keep their names."""
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
    """Mirrored targets, mirrored back in the crop, are the plain targets if the camera is centred."""
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
    # The root of the mirrored body is at the mirrored position, at the same depth.
    root = joints.root_index
    known = plain.params_weight > 0
    there, here = mirrored.fit_joints.points[known, root], plain.fit_joints.points[known, root]
    torch.testing.assert_close(64 - there[:, 0], here[:, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(there[:, 1:], here[:, 1:], atol=1e-3, rtol=0)
