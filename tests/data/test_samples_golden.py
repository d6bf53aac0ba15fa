"""Every sample of the five datasets equals that of the published code: images, targets, masks."""

import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.augmentation import NONE, Augmentation, draw
from i2l_meshnet.data.dataset import PersonDataset, Sample, collate
from i2l_meshnet.data.sources import Source, open_source
from i2l_meshnet.data.targets import CameraFitCheck, ImageFitCheck, Target, TargetBuilder, read_regressor
from i2l_meshnet.geometry.crop import invert_affine
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.geometry.rotations import matrix_to_axis_angle

FORCED = {
    "A": NONE,
    "B": Augmentation(1.1, math.radians(20), (1.1, 0.9, 1.05)),
    "C": Augmentation(0.85, math.radians(-35), (0.8, 1.2, 1.0), mirrored=True),
    "D": Augmentation(mirrored=True),
}
LIXELS = 1e-4
"""float32 pixels of a few hundred have steps of 3e-5; the published code rounds at other places than we do."""
METRES = 2e-6
RADIANS = 2e-6


def published_change(name: str, mirror: bool) -> Callable[[int, int], Augmentation]:
    """The forced or seeded change of a golden record."""

    def change(epoch: int, index: int) -> Augmentation:
        if name in FORCED:
            return dataclasses.replace(FORCED[name], mirrored=FORCED[name].mirrored and mirror)
        seed = int(name.removeprefix("seed"))
        return draw(random.Random(seed).random, np.random.RandomState(seed).standard_normal, mirror)

    return change


def picture_error(sample: Sample, item: int, golden: np.ndarray) -> np.ndarray:
    """Differences in grey levels on the golden's grid of pixels."""
    ours = sample.network_input()[item, :, ::16, ::16].numpy()
    return np.abs(ours - golden / 65535) * 255


def assert_picture(sample: Sample, item: int, golden: np.ndarray, change: Augmentation = NONE) -> None:
    """Ours is rounded to whole grey levels before the colours change it, OpenCV's integer blend adds its own half."""
    error = picture_error(sample, item, golden)
    assert error.max() <= 1.6 * max(change.colour)
    assert error.mean() <= 0.3


@pytest.fixture(scope="module")
def bodies(body_directory: Path) -> dict[str, Body]:
    return {name: load_body(name, body_directory) for name in ("smpl", "smpl-male", "smpl-female", "mano")}


def builder(source: Source, root: Path, bodies: dict[str, Body]) -> TargetBuilder:
    own = [bodies[name] for name in source.table.bodies]
    if source.name == "FreiHAND":
        return TargetBuilder(own, LixelGrid(depth_extent=0.3), source.table.skeleton, own_joints=False)
    camera = CameraFitCheck(read_regressor(root / "Human36M" / "J_regressor_h36m_correct.npy"))
    pelvis = read_regressor(root / "MSCOCO" / "J_regressor_coco_hip_smpl.npy")
    image = ImageFitCheck(pelvis, published_pelvis=True)
    return TargetBuilder(own, LixelGrid(), source.table.skeleton, camera, image)


def assert_target(target: Target, item: int, golden: dict[str, np.ndarray], hand: bool) -> None:
    """Targets, masks and fit of one item. Camera coordinates of hands are recorded in millimetres."""
    unit = 1000.0 if hand else 1.0
    fit, three_d = float(golden["is_valid_fit"]), float(golden["is_3D"])

    weight = target.joints.weight[item].numpy()
    np.testing.assert_array_equal(weight, golden["orig_joint_trunc"] * np.array([1, 1, three_d]))
    own = target.joints.points[item].numpy()
    np.testing.assert_allclose(own * weight, golden["orig_joint_img"] * weight, atol=LIXELS)

    labelled = target.camera_joints.weight[item].numpy()
    np.testing.assert_array_equal(labelled, (golden["orig_joint_valid"] * three_d).repeat(3, 1))
    camera = target.camera_joints.points[item].numpy() * unit
    np.testing.assert_allclose(camera * labelled, golden["orig_joint_cam"] * labelled, atol=METRES * unit)

    assert float(target.params_weight[item]) == fit
    step = 4 if hand else 92
    masks = ((target.fit_joints, "fit_joint_trunc", 1), (target.fit_vertices, "fit_mesh_trunc", step))
    for ours, name, every in masks:
        np.testing.assert_array_equal(ours.weight[item, ::every].numpy(), (golden[name] * fit).repeat(3, 1))
    assert set(np.unique(target.fit_camera_joints.weight[item].numpy())) == {fit}
    np.testing.assert_array_equal(target.params.shape[item].numpy(), golden["shape_param"])
    if not golden["fit_mesh_img"].any():
        return  # no fit: the published targets are zeros, ours carry no weight
    np.testing.assert_allclose(target.fit_joints.points[item].numpy(), golden["fit_joint_img"], atol=LIXELS)
    np.testing.assert_allclose(target.fit_vertices.points[item, ::step].numpy(), golden["fit_mesh_img"], atol=LIXELS)
    np.testing.assert_allclose(
        target.fit_camera_joints.points[item].numpy() * unit, golden["fit_joint_cam"], atol=METRES * unit
    )
    pose = matrix_to_axis_angle(target.params.pose[item]).numpy().ravel()
    np.testing.assert_allclose(pose, golden["pose_param"], atol=RADIANS)
    if not hand:
        total = target.fit_vertices.points[item].double().sum(0).numpy()
        np.testing.assert_allclose(total / 6890, golden["fit_mesh_img__sum"] / 6890, atol=LIXELS)


@pytest.mark.parametrize("change", [*FORCED, "seed0", "seed1"])
@pytest.mark.parametrize("name", ["Human36M", "MuCo", "MSCOCO", "FreiHAND"])
def test_training_samples(name: str, change: str, dataset_root: Path, goldens: Path, bodies: dict[str, Body]) -> None:
    hand = name == "FreiHAND"
    source = open_source(name, dataset_root, "train")
    drawn = published_change(change, mirror=not hand)
    dataset = PersonDataset(source, draw=drawn, full_decode=True)
    batch = collate([dataset[index] for index in range(len(dataset))])
    target = builder(source, dataset_root, bodies)(batch)
    with np.load(goldens / "datasets" / f"{name}.npz") as archive:
        assert len(dataset) == archive["train_len"]
        for item in range(len(dataset)):
            prefix = f"train/{item}/{change}/"
            golden = {key.removeprefix(prefix): archive[key] for key in archive.files if key.startswith(prefix)}
            assert_picture(batch, item, golden["img_s8"], drawn(0, item))
            assert_target(target, item, golden, hand)
            expected = golden.get("fitting_error", np.array(np.nan))
            if name == "FreiHAND" or np.isnan(expected):
                continue
            error = float(target.fit_error[item]) * (1 if name == "MSCOCO" else 1000)
            assert error == pytest.approx(float(expected), abs=1e-3)  # mm (float32 at 5 m: 5e-4), lixels


@pytest.mark.parametrize(
    ("name", "split"),
    [("Human36M", "test"), ("MSCOCO", "val"), ("PW3D", "train"), ("PW3D", "test"), ("FreiHAND", "eval")],
)
def test_plain_samples(name: str, split: str, dataset_root: Path, goldens: Path, bodies: dict[str, Body]) -> None:
    """Test samples, and 3DPW's training samples, which the published code leaves unchanged."""
    source = open_source(name, dataset_root, split)
    dataset = PersonDataset(source, full_decode=True)
    batch = collate([dataset[index] for index in range(len(dataset))])
    back = invert_affine(batch.crop.affine).numpy()
    mesh = builder(source, dataset_root, bodies).meshes(batch)[1] if name == "PW3D" else None
    with np.load(goldens / "datasets" / f"{name}.npz") as archive:
        for item in range(len(dataset)):
            prefix = f"train/{item}/A/" if split == "train" else f"test/{item}/"
            assert_picture(batch, item, archive[prefix + "img_s8"])
            np.testing.assert_allclose(back[item], archive[prefix + "bb2img_trans"], atol=1e-4)  # px
            if mesh is not None:
                expected = archive[prefix + "fit_mesh_coord_cam"]
                np.testing.assert_allclose(mesh[item, ::92].numpy(), expected, atol=METRES)


def test_a_perfect_fit_off_centre_passes_the_mended_check_only(dataset_root: Path, body_directory: Path) -> None:
    """The published check projects the pelvis at the product of the hips' depths, so it rejects this fit."""
    source = open_source("MSCOCO", dataset_root, "train")
    batch = collate([PersonDataset(source)[0]])
    fit = dataclasses.replace(
        batch.annotation.fit, translation=batch.annotation.fit.translation + torch.tensor([3.0, 0, 0])
    )
    annotation = dataclasses.replace(batch.annotation, fit=fit, visible=torch.ones(1, 18, dtype=torch.bool))
    moved = dataclasses.replace(batch, annotation=annotation)
    body = load_body("smpl", body_directory)
    regressor = read_regressor(dataset_root / "MSCOCO" / "J_regressor_coco_hip_smpl.npy")

    def check(sample: Sample, published: bool) -> Target:
        image_check = ImageFitCheck(regressor, published_pelvis=published)
        return TargetBuilder([body], LixelGrid(), source.table.skeleton, image_check=image_check)(sample)

    vertices = TargetBuilder([body], LixelGrid(), source.table.skeleton).meshes(moved)[1]
    seen = annotation.camera.project(ImageFitCheck(regressor).read_joints(vertices))
    labelled = dataclasses.replace(moved, annotation=dataclasses.replace(annotation, joints_image=seen))
    right, wrong = check(labelled, published=False), check(labelled, published=True)
    assert float(right.fit_error[0]) < 1e-3
    assert float(right.params_weight[0]) == 1
    assert float(wrong.fit_error[0]) > 3
    assert float(wrong.params_weight[0]) == 0


def test_the_same_fits_pass_on_grids_of_other_sizes(dataset_root: Path, bodies: dict[str, Body]) -> None:
    """The limit is a part of the crop: three lixels of the published 64."""
    source = open_source("MSCOCO", dataset_root, "train")
    batch = PersonDataset(source).batch(range(len(source)))
    check = ImageFitCheck(read_regressor(dataset_root / "MSCOCO" / "J_regressor_coco_hip_smpl.npy"))
    grids = [LixelGrid(), LixelGrid((16, 16, 16))]
    fine, coarse = (TargetBuilder([bodies["smpl"]], grid, source.table.skeleton, None, check)(batch) for grid in grids)
    assert 0 < fine.params_weight.sum() < len(source)
    assert torch.equal(coarse.params_weight, fine.params_weight)
    torch.testing.assert_close(4 * coarse.fit_error, fine.fit_error, equal_nan=True)
