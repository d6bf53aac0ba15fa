"""The contact sheet: a grid of panels for all photos, also where nobody was found."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from i2l_lab.tools import contact_sheet
from i2l_meshnet import assets
from i2l_meshnet.bodies import load_body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.results import PicturePrediction


class StandInPredictor:
    """Finds nobody."""

    def __call__(self, path: Path) -> PicturePrediction:
        camera = Camera(torch.tensor([90.0, 90.0]), torch.tensor([30.0, 40.0]))
        pixels = np.full((80, 60, 3), 90, np.uint8)
        return PicturePrediction(path.stem, path.name, pixels, camera, "default", "detector", load_body("toy"), ())


def test_a_folder_becomes_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((80, 60, 3), np.uint8))
    monkeypatch.setattr(assets, "ensure", lambda name: tmp_path)
    monkeypatch.setattr(contact_sheet.MeshPredictor, "load", lambda weights: StandInPredictor())
    contact_sheet.make_sheet(contact_sheet.SheetOptions((str(tmp_path),), tmp_path / "out" / "sheet.png", height=60))
    picture = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert picture is not None
    # Three photos in two columns: two rows of a panel and its caption, four panels of 40 px each.
    assert picture.shape == (2 * (60 + 26), 2 * 160 + 6, 3)
    assert "3 photos" in capsys.readouterr().out


def test_tilt_towards_the_camera_is_positive() -> None:
    skeleton = load_body("toy").skeleton
    joints = np.zeros((len(skeleton), 3), np.float32)
    for side in "LR":
        joints[skeleton.index(f"{side}_Shoulder")] = [0, -1, 3]
        joints[skeleton.index(f"{side}_Ankle")] = [0.2, 0.5, 3]
    assert contact_sheet.tilt(joints, skeleton) == pytest.approx(0)
    joints[[skeleton.index(f"{side}_Shoulder") for side in "LR"], 2] -= 1.5
    assert contact_sheet.tilt(joints, skeleton) == pytest.approx(45)


def test_a_camera_that_looks_down_has_its_horizon_above_the_centre() -> None:
    found = StandInPredictor()(Path("photo.png"))
    assert contact_sheet.camera_pitch(found, 0.5) == pytest.approx(0)
    assert contact_sheet.camera_pitch(found, 0.25) == pytest.approx(np.degrees(np.arctan(20 / 90)))
