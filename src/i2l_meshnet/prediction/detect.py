"""Finds people in images."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from i2l_meshnet.io import reading
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.runtimes import onnxruntime

DEFAULT_THRESHOLD = 0.35
"""Minimum score of a person. People half hidden in a group have about 0.4."""

PAD_VALUE = 114
"""Grey of YOLOX's letterbox."""


class PersonDetector:
    """YOLOX (Ge et al. 2021), exported by MMDeploy and run with onnxruntime on the CPU.

    The input is BGR, 0 to 255, letterboxed from the top left corner. The output, after non-maximum suppression, is
    `dets` (1, n, 5): x1, y1, x2, y2 in letterbox pixels, and the score.
    """

    def __init__(self, path: Path, threshold: float = DEFAULT_THRESHOLD, threads: int | None = None) -> None:
        """threads: None for onnxruntime's default. Raises FileError if the network cannot be loaded."""
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Spinning threads would slow down the mesh network and the drawing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with reading(path, "a person detector that ONNX Runtime can read", "fetch the asset detector again"):
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            entry = self._session.get_inputs()[0]
            self._size = (int(entry.shape[2]), int(entry.shape[3]))
        self._input = entry.name
        self.threshold = threshold
        self.max_people: int | None = None
        """Maximum people per picture, the highest scores first; None for all."""

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, "n"]]:
        """Boxes (x, y, width, height; pixels, clipped to the image) and scores of people, highest score first.

        image: RGB. Boxes with less than two pixels inside the image are left out.
        """
        height, width = image.shape[:2]
        blob, scale = self._letterbox(image)
        found = self._session.run(["dets"], {self._input: blob})[0]
        dets = np.asarray(found, dtype=np.float32)[0]
        dets = dets[dets[:, 4] >= self.threshold]
        dets = dets[np.argsort(-dets[:, 4], kind="stable")]
        corners = dets[:, :4] / scale
        corners[:, 0::2] = corners[:, 0::2].clip(0, width)
        corners[:, 1::2] = corners[:, 1::2].clip(0, height)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        seen = (boxes[:, 2:] >= 2).all(1)
        return boxes[seen][: self.max_people], dets[seen, 4][: self.max_people]

    def _letterbox(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "1 3 ih iw"], float]:
        height, width = image.shape[:2]
        scale = min(self._size[0] / height, self._size[1] / width)
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR)
        canvas = np.full((*self._size, 3), PAD_VALUE, np.float32)
        canvas[: size[1], : size[0]] = shrunk[..., ::-1]
        return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]), scale


def detected_people(
    detector: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], image: UInt8[np.ndarray, "h w 3"]
) -> list[PersonBox]:
    """The people that a detector finds in an RGB image, highest score first."""
    found, scores = detector(image)
    return [
        PersonBox((float(x), float(y), float(w), float(h)), float(score))
        for (x, y, w, h), score in zip(found, scores, strict=True)
    ]
