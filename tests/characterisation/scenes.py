"""Photos and clips for these tests, made from the images in `examples/`."""

from pathlib import Path

import av
import cv2
import numpy as np
from surfaces import EXAMPLES

HEIGHT = 480
FRAMES, RATE, SIZE = 40, 20, (240, 320)
"""Frames of the clip, frames per second, (width, height)."""


def example(name: str, height: int) -> np.ndarray:
    """An image of `examples/`, BGR, scaled to a height."""
    picture = cv2.imread(str(EXAMPLES / f"{name}.jpg"))
    assert picture is not None
    return cv2.resize(picture, (picture.shape[1] * height // picture.shape[0], height), interpolation=cv2.INTER_AREA)


def three_people(path: Path) -> Path:
    """A lossless photo of three people side by side."""
    names = ("standing_phone", "standing_garden", "standing_jacket")
    assert cv2.imwrite(str(path), np.concatenate([example(name, HEIGHT) for name in names], 1))
    return path


def clip(path: Path, frames: int = FRAMES) -> Path:
    """A lossless clip of one person; the camera pans and moves closer."""
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
            affine = np.array([[zoom, 0, -left * zoom], [0, zoom, -top * zoom]])
            pixels = cv2.warpAffine(picture, affine, SIZE, flags=cv2.INTER_AREA, borderValue=(90, 90, 90))
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
