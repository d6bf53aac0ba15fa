"""Photos and clips for these tests, made of the pictures in `examples/` when they are needed."""

from pathlib import Path

import av
import cv2
import numpy as np
from surfaces import EXAMPLES

HEIGHT = 480
FRAMES, RATE, SIZE = 40, 20, (240, 320)
"""Of the clip: frames, frames a second, (width, height)."""


def example(name: str, height: int) -> np.ndarray:
    """A picture of `examples/`, BGR, scaled to a height."""
    picture = cv2.imread(str(EXAMPLES / f"{name}.jpg"))
    assert picture is not None
    return cv2.resize(picture, (picture.shape[1] * height // picture.shape[0], height), interpolation=cv2.INTER_AREA)


def three_people(path: Path) -> Path:
    """A photo of three people, side by side, without loss."""
    names = ("standing_phone", "standing_garden", "standing_jacket")
    assert cv2.imwrite(str(path), np.concatenate([example(name, HEIGHT) for name in names], 1))
    return path


def clip(path: Path, frames: int = FRAMES) -> Path:
    """One person, whom the camera pans along and comes nearer to, without loss."""
    picture = example("standing_garden", 2 * SIZE[1])
    height, width = picture.shape[:2]
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "bgr0"
        for number in range(frames):
            share = number / max(frames - 1, 1)
            side = (1 - 0.2 * share) * height
            left, top = (width - side * SIZE[0] / SIZE[1]) * (0.3 + 0.4 * share), (height - side) / 2
            zoom = SIZE[1] / side
            place = np.array([[zoom, 0, -left * zoom], [0, zoom, -top * zoom]])
            pixels = cv2.warpAffine(picture, place, SIZE, flags=cv2.INTER_AREA, borderValue=(90, 90, 90))
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
