from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filmed import SIZE, Stage, Walker, frame_pixels, stage_options
from predict_options import clip_options

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.video import webcam
from i2l_meshnet.video.source import Clip


class Device:
    """A camera that gives `count` frames and stops."""

    def __init__(self, count: int) -> None:
        self.count, self.given, self.released = count, 0, False

    def read(self) -> tuple[bool, Any]:
        if self.given == self.count:
            return False, None
        self.given += 1
        return True, np.ascontiguousarray(frame_pixels(self.given)[..., ::-1])

    def release(self) -> None:
        self.released = True


def test_people_are_drawn_and_the_drawings_are_saved(
    toy: Body, use: Callable[[Stage], Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    device, stage = Device(7), use(Stage(toy, [Walker(lambda t: (0, 0, 6))]))
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: device)
    monkeypatch.setattr(webcam, "has_window", lambda: False)
    assert webcam.run(*stage_options(out=tmp_path, webcam=0)) == 0
    assert "6 frames" in capsys.readouterr().out
    assert device.released
    (path,) = tmp_path.glob("webcam_*_overlay.mp4")
    video = Clip(path)
    assert (video.width, video.height) == SIZE
    x, y, w, h = (round(value) for value in stage.box(stage.meshes(0)[0]))
    drawn = np.abs(next(video.frames(3)).pixels.astype(int) - frame_pixels(4))
    assert drawn[y : y + h, x : x + w].mean() > 2 * drawn[:, : x - 10].mean() + 5


def test_a_camera_without_pictures_and_invalid_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Device(0))
    with pytest.raises(FileError):
        webcam.run(*stage_options(out=tmp_path, webcam=0))
    for options, argument in (
        (clip_options("a.mp4", webcam=0), "webcam"),
        (stage_options(out=tmp_path, webcam=0, hands=True), "hands"),
    ):
        with pytest.raises(InputError) as caught:
            webcam.run(*options)
        assert caught.value.argument == argument
    assert not list(tmp_path.iterdir())
