"""Held-out synthetic images as a benchmark: errors, confidence bands, body shape."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from i2l_lab.synthetic.cameras import FACING
from i2l_lab.synthetic.generate import write_pictures
from i2l_lab.synthetic.pictures import Picture
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.data.sources.synthetic import synthetic_source
from i2l_meshnet.evaluation.annotated import ScoringOptions
from i2l_meshnet.evaluation.benchmark import System, evaluate
from i2l_meshnet.evaluation.synthetic_pictures import SyntheticPictures, shape_rows, volume
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.skeletons import HALPE26

PEOPLE = 4
CONFIDENCE = (0.3, 0.5, 0.9, 0.9)


@pytest.fixture
def folder(anny: Body, tmp_path: Path) -> Path:
    """Held-out shards of upright people, 4 m away, from short and slim to tall and heavy."""
    pictures = []
    for i in range(PEOPLE):
        pose = torch.eye(3).repeat(len(anny.bones), 1, 1)
        pose[0] = torch.tensor(FACING)
        value = i / (PEOPLE - 1)
        shape = torch.tensor([0.5, 0.7, 0.5, value, value, 0.5])
        params = BodyParams(pose, shape, torch.tensor([0.0, 0.9, 4.0]))
        mesh = anny(params)
        focal, center = np.full(2, 400, np.float32), np.full(2, 127.5, np.float32)
        pixels = mesh.vertices.numpy()[:, :2] / mesh.vertices.numpy()[:, 2:] * focal + center
        low, high = pixels.min(0), pixels.max(0)
        _, jpeg = cv2.imencode(".jpg", np.full((256, 256, 3), 40 * i, np.uint8))
        points = np.zeros((1, 3), np.float32)
        box = np.concatenate([low, high - low]).astype(np.float32)
        pictures.append(Picture(jpeg.reshape(-1), points, points, box, focal, center, params))
    write_pictures(tmp_path / "val_00000.npz", pictures)
    return tmp_path


def of_one_leg(body: Body) -> torch.Tensor:
    """Mask of the vertices of the leg at positive x."""
    rest = body(body.rest_params())
    hip = rest.joints[body.skeleton.index("L_Hip"), 2]
    return (rest.vertices[:, 0] > 0) & (rest.vertices[:, 2] < hip + 0.1)


class Knowing:
    """Predicts each person's true mesh and parameters, with one leg moved by `shift` metres in depth."""

    def __init__(self, folder: Path, body: Body, shift: float = 0.0) -> None:
        self.grid = LixelGrid(crop_size=(256, 192), depth_extent=2.4, margin=0.5, depth_axis="crop")
        sample = PersonDataset(synthetic_source(folder, "val"), crop_size=self.grid.crop_size).batch(range(PEOPLE))
        fit, camera = sample.annotation.fit, sample.annotation.camera
        truth = BodyParams(fit.camera_pose(), fit.shape, fit.translation)
        vertices = body(truth).vertices.clone()
        vertices[:, of_one_leg(body), 2] += shift
        lixels = self.grid.from_camera(vertices, sample.crop, camera, sample.annotation.root_depth)
        local = truth.rotated(self.grid.view_rotation(sample.crop, camera).mT)
        keypoints = torch.tensor(CONFIDENCE)[:, None, None].expand(-1, 26, 3)
        self.rows = LixelOutput(lixels[:, :1], lixels, lixels[:, :1], local, keypoints)
        self.next = 0
        self.parameter_regressor = self

    def __call__(self, image: torch.Tensor) -> LixelOutput:
        start, self.next = self.next, (self.next + len(image)) % PEOPLE
        return self.rows[start : start + len(image)]


def benchmark(network: Knowing, body: Body, folder: Path, pictures: int = 0) -> SyntheticPictures:
    system = System(network, body, torch.device("cpu"), "mine")
    return SyntheticPictures(system, folder, ScoringOptions(batch_size=2), pictures)


def test_a_perfect_network_has_no_errors_and_the_right_shapes(folder: Path, anny: AnnyBody, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scored = benchmark(Knowing(folder, anny), anny, folder, pictures=1)
    evaluate(scored)
    assert len(scored.write(out)) == 8 + 3  # lines, two tables, a closing line
    content = json.loads((out / "metrics.json").read_text())
    for kind in ("lixel", "param"):
        assert all(value < 0.5 for value in content["metrics"][kind].values())
    assert {name: group["samples"] for name, group in content["groups"].items()} == {
        "below 0.4": 1,
        "0.4 to 0.6": 1,
        "0.8 and above": 2,
    }
    rows = list(csv.DictReader((out / "shapes.csv").read_text().splitlines()))
    assert [row["people"] for row in rows][:2] == ["all", "adults"]
    assert float(rows[0]["stature_error_mm"]) < 0.1
    assert float(rows[0]["volume_correlation"]) > 0.999
    assert rows[0]["gender_correlation"] == ""
    assert cv2.imread(str(out / "worst_1.jpg")) is not None


def test_errors_of_one_moved_leg(folder: Path, anny: AnnyBody) -> None:
    scored = benchmark(Knowing(folder, anny, shift=0.1), anny, folder)
    evaluate(scored)
    moved = torch.zeros(anny.joint_regressor.shape[1], 3)
    moved[of_one_leg(anny), 2] = 100
    assert anny.keypoint_regressor is not None
    joints = anny.keypoint_regressor @ moved
    offset = moved - joints[[HALPE26.index("L_Hip"), HALPE26.index("R_Hip")]].mean(0)
    expected = float(offset.norm(dim=-1).mean())
    assert scored.evaluation().mean("lixel", "mpvpe") == pytest.approx(expected, abs=0.2)
    assert scored.evaluation().mean("param", "mpvpe") < 0.5


def test_equal_shapes_for_all_people_do_not_correlate(anny: AnnyBody) -> None:
    true = torch.tensor(
        [[0.5, 0.7, 0.5, 0.3, 0.2, 0.5], [0.5, 0.7, 0.5, 0.5, 0.5, 0.5], [0.5, 0.7, 0.5, 0.8, 0.9, 0.5]]
    )
    row = shape_rows(anny, true[1:2].expand(3, -1), true, ["below 0.4"] * 3)[0]
    assert row["stature_correlation"] is None
    assert row["stature_error_mm"] > 10
    taller = true + torch.tensor([0, 0, 0, 0, 0.1, 0])
    row = shape_rows(anny, taller, true, ["below 0.4"] * 3)[0]
    assert row["stature_bias_mm"] == pytest.approx(row["stature_error_mm"])
    assert 40 < float(volume(anny, true[1:2])) < 100
