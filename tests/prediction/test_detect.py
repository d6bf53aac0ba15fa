from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet.errors import FileError
from i2l_meshnet.prediction.detect import PAD_VALUE, PersonDetector
from i2l_meshnet.prediction.images import read_photo

EXAMPLES = Path(__file__).parents[2] / "examples"


class FakeSession:
    """Replaces onnxruntime's session: keeps its input and returns given detections."""

    def __init__(self, dets: list[list[float]]) -> None:
        self.dets = np.array([dets], np.float32).reshape(1, -1, 5)

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        (self.blob,) = inputs.values()
        return [self.dets]


def detector(dets: list[list[float]]) -> PersonDetector:
    made = PersonDetector.__new__(PersonDetector)
    made._session, made._size, made._input, made.threshold = FakeSession(dets), (416, 416), "input", 0.5  # pyright: ignore
    made.max_people = None
    return made


def letterboxed(picture: np.ndarray) -> np.ndarray:
    """The network's input for a picture in which nobody is found."""
    found = detector([])
    boxes, scores = found(picture)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)
    return found._session.blob  # pyright: ignore


def test_boxes_come_back_in_picture_pixels_best_first_and_inside() -> None:
    # 832 x 416 is shrunk to half.
    found = detector([[10, 20, 60, 120, 0.6], [350, 100, 500, 260, 0.9], [0, 0, 50, 50, 0.4], [0, 205, 99, 240, 0.8]])
    boxes, scores = found(np.zeros((416, 832, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[700, 200, 132, 216], [0, 410, 198, 6], [20, 40, 100, 200]])
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.6])
    found.max_people = 1
    assert len(found(np.zeros((416, 832, 3), np.uint8))[0]) == 1


def test_the_letterbox_is_bgr_on_grey() -> None:
    picture = np.zeros((208, 416, 3), np.uint8)
    picture[..., 0] = 200
    blob = letterboxed(picture)
    assert blob.shape == (1, 3, 416, 416)
    assert blob.dtype == np.float32
    assert (blob[0, 2, :208] == 200).all()
    assert (blob[0, :2, :208] == 0).all()
    assert (blob[0, :, 208:] == PAD_VALUE).all()
    for shape in ((2, 5000, 3), (5000, 2, 3), (2, 2, 3)):
        assert letterboxed(np.zeros(shape, np.uint8)).shape == (1, 3, 416, 416)


@pytest.mark.parametrize("side", [1664, 640, 104])
def test_the_letterbox_mixes_pixels(side: int) -> None:
    """Stripes of one pixel become grey where the picture shrinks; where it grows, there is grey between them."""
    picture = np.zeros((side, side, 3), np.uint8)
    picture[:, ::2] = 200
    blob = letterboxed(picture)[0, 0]
    assert ((blob > 20) & (blob < 180)).mean() > 0.4
    if side > 2 * 416:
        np.testing.assert_allclose(blob, 100, atol=1)


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("no network")
    for path in (tmp_path / "a.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(FileError) as caught:
            PersonDetector(path)
        assert str(path) in str(caught.value)


def test_the_real_detector_finds_the_person_of_an_example(fetched: Callable[[str], Path]) -> None:
    photo = read_photo(EXAMPLES / "standing_garden.jpg")
    boxes, scores = PersonDetector(fetched("detector"), threads=1)(photo.pixels)
    assert len(boxes) == 1
    assert scores[0] > 0.8
    assert boxes[0, 3] > 0.5 * photo.height
