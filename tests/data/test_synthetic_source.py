"""Shards of synthetic pictures as a dataset."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from i2l_lab.synthetic.cameras import FACING
from i2l_lab.synthetic.generate import write_pictures
from i2l_lab.synthetic.pictures import Picture
from i2l_meshnet.bodies import BodyParams, load_body
from i2l_meshnet.data.dataset import PersonDataset, collate
from i2l_meshnet.data.sources.synthetic import synthetic_source
from i2l_meshnet.data.targets import TargetBuilder
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.lixel import LixelGrid

BODY = load_body("anny")
FOCAL, SIDE = 300.0, 96


def person(distance: float) -> Picture:
    """Anny at rest, upright, facing a camera `distance` metres away."""
    rest = BODY.rest_params()
    pose = rest.pose.clone()
    pose[0] = torch.tensor(FACING)
    root = BODY(BodyParams(pose, rest.shape, rest.translation)).joints[BODY.skeleton.root_index]
    params = BodyParams(pose, rest.shape.clone(), torch.tensor([0.0, 0.0, distance]) - root)
    mesh = BODY(params)
    center = np.full(2, (SIDE - 1) / 2, np.float32)

    def pixels(points: np.ndarray) -> np.ndarray:
        return np.concatenate([points[:, :2] / points[:, 2:] * FOCAL + center, points[:, 2:]], 1).astype(np.float32)

    image = np.full((SIDE, SIDE, 3), int(distance * 10), np.uint8)
    return Picture(
        cv2.imencode(".jpg", image)[1].reshape(-1),
        pixels(mesh.vertices.numpy()),
        pixels(mesh.joints.numpy()),
        np.array([20, 5, 50, 80], np.float32),
        np.full(2, FOCAL, np.float32),
        center,
        params,
    )


@pytest.fixture
def shards(tmp_path: Path) -> list[Picture]:
    people = [person(distance) for distance in (6.0, 8.0, 10.0)]
    write_pictures(tmp_path / "train_00000.npz", people[:2])
    write_pictures(tmp_path / "train_00001.npz", people[2:])
    return people


def test_samples_are_the_people_of_the_shards(tmp_path: Path, shards: list[Picture]) -> None:
    source = synthetic_source(tmp_path, "train")
    assert source.table.arrays["id"].tolist() == [0, 1, 2]
    dataset = PersonDataset(source)
    sample = collate([dataset[i] for i in range(len(source))])
    assert sample.image[:, 0, 128, 128].tolist() == [60, 80, 100]
    truth = torch.from_numpy(np.stack([picture.joints for picture in shards]))
    annotation = sample.annotation
    torch.testing.assert_close(annotation.joints_image, truth[..., :2], rtol=0, atol=1e-3)
    torch.testing.assert_close(annotation.joints_camera[..., 2], truth[..., 2], rtol=0, atol=1e-5)
    # The fitted body projects onto the same joints.
    target = TargetBuilder([BODY], LixelGrid(), BODY.skeleton)(sample)
    both = (target.joints.weight * target.fit_joints.weight) > 0
    assert both.float().mean() > 0.5
    difference = (target.fit_joints.points - target.joints.points).abs()
    assert difference[both].max() < 1e-2
    assert target.params_weight.tolist() == [1, 1, 1]


def test_missing_and_damaged_shards_are_refused(tmp_path: Path, shards: list[Picture]) -> None:
    with pytest.raises(FileError):
        synthetic_source(tmp_path, "val")
    with pytest.raises(InputError):
        synthetic_source(tmp_path, "test")
    (tmp_path / "train_00001.npz").write_bytes(b"nothing")
    with pytest.raises(FileError, match="train_00001"):
        synthetic_source(tmp_path, "train")
