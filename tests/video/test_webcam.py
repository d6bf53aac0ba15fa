from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filmed import CAMERA, SIZE, Stage, Walker, frame_pixels
from predict_options import clip_options

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.prediction import predict_files
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.video import webcam
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.source import Clip


class Device:
    """A camera that gives so many frames and then none."""

    def __init__(self, count: int) -> None:
        self.count, self.given, self.released = count, 0, False

    def read(self) -> tuple[bool, Any]:
        if self.given == self.count:
            return False, None
        self.given += 1
        return True, np.ascontiguousarray(frame_pixels(self.given)[..., ::-1])

    def release(self) -> None:
        self.released = True


def options(tmp_path: Path, **more: Any) -> tuple[PredictOptions, ClipOptions]:
    intrinsics = (*CAMERA.focal.tolist(), *CAMERA.center.tolist())
    return clip_options(out=tmp_path, webcam=0, intrinsics=intrinsics, **more)


def test_what_the_camera_sees_is_drawn_and_kept(
    toy: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device, stage = Device(7), Stage(toy, [Walker(lambda t: (0, 0, 6))])
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: device)
    monkeypatch.setattr(MeshPredictor, "load", lambda *arguments: stage)
    monkeypatch.setattr(predict_files.assets, "find", lambda name: Path("detector"))
    monkeypatch.setattr(webcam, "has_window", lambda: False)
    assert webcam.run(*options(tmp_path)) == 0
    shown = capsys.readouterr()
    assert "6 frames" in shown.out
    assert "i2l-meshnet serve" in shown.err
    assert device.released
    (path,) = tmp_path.glob("webcam_*_overlay.mp4")
    video = Clip(path)
    assert (video.width, video.height) == SIZE
    x, y, w, h = (round(value) for value in stage.box(stage.meshes(0)[0]))
    drawn = np.abs(next(video.frames(3)).pixels.astype(int) - frame_pixels(4))
    assert drawn[y : y + h, x : x + w].mean() > 2 * drawn[:, : x - 10].mean() + 5


def test_a_camera_that_gives_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Device(0))
    with pytest.raises(FileError, match="camera 0 gives no picture"):
        webcam.run(*options(tmp_path))
    with pytest.raises(InputError):
        webcam.run(*clip_options("a.mp4", webcam=0))
    with pytest.raises(InputError):
        webcam.run(*options(tmp_path, hands=True))
    assert not list(tmp_path.iterdir())
