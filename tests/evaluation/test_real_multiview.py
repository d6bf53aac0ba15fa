"""Scores on the multi-view clips: lean of the trunk, accelerations, tables, cached detections."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2l_meshnet import assets
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.data.multiview import HIPS, JOINTS, MultiviewClip, MultiviewSamples
from i2l_meshnet.data.triangulation import PosedCamera
from i2l_meshnet.evaluation import real_multiview
from i2l_meshnet.evaluation.benchmark import Share, System, evaluate
from i2l_meshnet.evaluation.multiview import consecutive, report, trunk_lean
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.models.output import LixelOutput


def standing() -> torch.Tensor:
    """Joints of a person who stands upright and faces the camera (12, 3), metres."""
    left = {"Shoulder": (0.2, -0.5), "Elbow": (0.25, -0.2), "Wrist": (0.3, 0.0)}
    left |= {"Hip": (0.1, 0.0), "Knee": (0.1, 0.45), "Ankle": (0.1, 0.9)}
    signs = {"L": 1, "R": -1}
    return torch.tensor([[signs[joint[0]] * left[joint[2:]][0], left[joint[2:]][1], 4.0] for joint in JOINTS])


def samples(joints: torch.Tensor, frames: list[int], view: int = 0) -> MultiviewSamples:
    count = len(joints)
    keypoints = torch.cat([torch.zeros(count, 26, 2), torch.full((count, 26, 1), 0.8)], -1)
    return MultiviewSamples(
        view=torch.full((count,), view),
        frame=torch.tensor(frames),
        person=torch.zeros(count, dtype=torch.long),
        box=torch.tensor([100.0, 100, 150, 300]).expand(count, 4),
        camera=Camera(torch.full((count, 2), 800.0), torch.full((count, 2), 200.0)),
        keypoints=keypoints,
        joints=joints,
        joints_without=joints + 0.001,
        error=torch.full((count,), 2.0),
    )


@pytest.mark.parametrize("degrees", [-7.0, 0.0, 12.0])
def test_lean_is_positive_forward_in_the_frame_of_the_person(degrees: float) -> None:
    truth = standing()
    hips = truth[list(HIPS)].mean(0)
    angle = math.radians(degrees)
    # Forward is towards the camera (-z): a rotation about x from up (-y) to forward.
    rotation = axis_angle_to_matrix(torch.tensor([angle, 0.0, 0.0]))
    leaning = (truth - hips) @ rotation.T + hips
    assert math.degrees(float(trunk_lean(leaning, truth))) == pytest.approx(degrees, abs=1e-3)
    away = torch.tensor([-1.0, 1, -1])
    assert math.degrees(float(trunk_lean(leaning * away, truth * away))) == pytest.approx(degrees, abs=1e-3)


def test_acceleration_errors_are_known_only_between_neighbouring_frames() -> None:
    steady = standing()[None].repeat(5, 1, 1)
    found = steady.clone()
    found[1, 0, 0] += 0.024
    given = samples(steady, [0, 1, 2, 3, 5])
    middle, before, after = consecutive(given)
    assert (middle.tolist(), before.tolist(), after.tolist()) == ([1, 2], [0, 1], [2, 3])
    errors = report(given, {"lixel": found}).errors["lixel"]
    # One of twelve joints moves by 24 mm and back: its second difference is 48 mm, then 24 mm.
    expected = [float("nan"), 4, 2, float("nan"), float("nan")]
    torch.testing.assert_close(errors.acceleration, torch.tensor(expected), equal_nan=True, atol=1e-3, rtol=0)


def test_depth_bias_by_joint_and_errors_by_view() -> None:
    joints = standing()[None].repeat(2, 1, 1)
    found = joints.clone()
    found[:, JOINTS.index("L_Wrist"), 2] += 0.06
    given = MultiviewSamples.concatenate([samples(joints, [0, 1]), samples(joints, [0, 1], view=2)])
    scores = report(given, {"lixel": torch.cat([found, joints])})
    wrist = next(row for row in scores.joint_rows() if row["joint"] == "L_Wrist")
    assert wrist["lixel_depth_bias_mm"] == pytest.approx(30, abs=1e-3)
    first, second = scores.view_rows()
    assert (first["view"], second["view"]) == (1, 3)
    assert first["lixel_mpjpe_mm"] == pytest.approx(5, abs=1e-3)
    assert second["lixel_mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    assert len(scores.tables()) == 2


class StandInNetwork:
    """Predicts the same mesh for every crop, at the centre of the grid."""

    def __init__(self, vertices: int) -> None:
        self.grid = LixelGrid(crop_size=(64, 48))
        self.vertices = vertices

    def __call__(self, image: torch.Tensor) -> LixelOutput:
        noise = torch.randn(len(image), self.vertices, 3, generator=torch.Generator().manual_seed(0))
        return LixelOutput(noise[:, :1], 32 + noise, noise[:, :1])


def test_samples_and_crops_of_clips_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Demo_One" / "videos").mkdir(parents=True)
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "ensure", lambda name: tmp_path)
    none = PosedCamera(Camera(torch.zeros(0, 2), torch.zeros(0, 2)), torch.zeros(0, 3, 3), torch.zeros(0, 3))
    clip = MultiviewClip("Demo_One", none, np.zeros((0, 4)), ())
    monkeypatch.setattr(real_multiview, "open_clip", lambda path: clip)
    monkeypatch.setattr(real_multiview, "load_onnx", lambda path: torch.nn.Identity())
    monkeypatch.setattr(real_multiview, "PersonDetector", lambda path: None)
    given = samples(standing()[None].repeat(3, 1, 1), [0, 1, 2])
    made: list[str] = []

    def build(*arguments: object) -> MultiviewSamples:
        made.append("samples")
        return given

    def read(*arguments: object) -> torch.Tensor:
        made.append("crops")
        return torch.zeros(3, 3, 64, 48, dtype=torch.uint8)

    monkeypatch.setattr(real_multiview, "build_samples", build)
    monkeypatch.setattr(real_multiview, "read_crops", read)
    body = load_body("anny")
    system = System(StandInNetwork(len(body.joint_regressor[0])), body, torch.device("cpu"), "mine")

    def scored(out: Path) -> dict[str, Any]:
        benchmark = real_multiview.RealMultiview(system, every=1, batch_size=2)
        evaluate(benchmark)
        benchmark.write(out)
        return json.loads((out / "multiview.json").read_text())

    content = scored(tmp_path / "first")
    assert scored(tmp_path / "second") == content
    assert made == ["samples", "crops"]
    assert content["weights"] == "mine"
    assert content["clips"]["Demo_One"]["meshes"]["lixel"]["acceleration_mm_per_squared_frame"] > 0
    rows = list(csv.DictReader((tmp_path / "second" / "multiview_samples.csv").read_text().splitlines()))
    assert [row["frame"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["lixel_acceleration_mm_per_squared_frame"] == ""
    # Two processes score one batch each.
    halves = [real_multiview.RealMultiview(system, every=1, batch_size=2) for _ in range(2)]
    for index, half in enumerate(halves):
        evaluate(half, Share(index, 2))
    halves[0].merge([halves[1].collected()])
    halves[0].write(tmp_path / "halves")
    assert json.loads((tmp_path / "halves" / "multiview.json").read_text()) == content
    # Crops at other positions are read again.
    crop = MultiviewSamples.crop
    monkeypatch.setattr(MultiviewSamples, "crop", lambda self, size: crop(replace(self, box=self.box * 1.1), size))
    scored(tmp_path / "third")
    assert made == ["samples", "crops", "crops"]
