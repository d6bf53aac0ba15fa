"""Videos in Python: the people of every frame, with permanent numbers and smooth motion, frame by frame."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8

from i2l_meshnet.bodies.base import Body, BodyMesh
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.overlay import draw_overlay
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import MeshKind, Prediction
from i2l_meshnet.video.motion import Motion, MotionFilter
from i2l_meshnet.video.source import Clip, Frame
from i2l_meshnet.video.tracking import DETECT_EVERY, MAX_GAP, Tracker

SAMPLES = 2
"""Samples per pixel and axis in drawings of videos."""


@dataclasses.dataclass(frozen=True)
class TrackedFrame:
    """One frame and the people in it, by their numbers, which are the same in all frames.

    number: of the frame, from 0. time: seconds from the start of the clip. pixels: upright RGB.
    """

    number: int
    time: float
    pixels: UInt8[np.ndarray, "h w 3"]
    camera: Camera
    people: dict[int, Prediction]

    def overlay(self, show: MeshKind = "lixel") -> UInt8[np.ndarray, "h w 3"]:
        """The frame with the meshes of all people."""
        surfaces = [person.surface(show) for person in self.people.values()]
        focal, center = self.camera.focal.double().numpy(), self.camera.center.double().numpy()
        return draw_overlay(self.pixels, surfaces, focal, center, list(self.people), SAMPLES)


def predict_video(
    predictor: MeshPredictor,
    clip: Path | str,
    *,
    smooth: Literal["one-euro", "off"] = "one-euro",
    boxes: Sequence[Sequence[float] | PersonBox] | None = None,
    intrinsics: Intrinsics | None = None,
    detect_every: int = DETECT_EVERY,
    max_gap: float = MAX_GAP,
) -> Iterator[TrackedFrame]:
    """Yield the people of every frame of a video file. Frames are computed while you iterate.

        predictor = MeshPredictor.load()
        for frame in predict_video(predictor, "clip.mp4"):
            print(frame.time, frame.people)

    smooth: "one-euro" uses earlier frames only. boxes: (x, y, width, height) of the people in the first frame, pixels;
    then the detector is not used. detect_every: frames between two runs of the detector. max_gap: seconds after which
    an unseen person is given up. Raises UserError.
    """
    source = Clip(Path(clip))
    camera, _ = (intrinsics or Intrinsics()).camera(source.width, source.height)
    tracker = Tracker(
        predictor, camera, (source.width, source.height), boxes, detect_every=detect_every, max_gap=max_gap
    )
    return follow(tracker, source.frames(), smooth)


def follow(
    tracker: Tracker, frames: Iterable[Frame], smooth: Literal["one-euro", "off"] = "one-euro"
) -> Iterator[TrackedFrame]:
    """Yield each frame with its people."""
    smoothers: dict[int, LiveSmoother] = {}
    for frame in frames:
        people = tracker.step(frame.pixels, frame.time)
        if smooth == "one-euro":
            smoothers = {who: one for who, one in smoothers.items() if frame.time - one.time <= tracker.max_gap}
            for who, person in people.items():
                smoother = smoothers.setdefault(who, LiveSmoother(person.body, frame.time))
                people[who] = smoother.step(person, frame.time)
        yield TrackedFrame(frame.number, frame.time, frame.pixels, tracker.camera, people)


class LiveSmoother:
    """Smooths the predictions of one person frame by frame. The shape is the mean of all frames so far."""

    def __init__(self, body: Body, time: float) -> None:
        """time: of the first frame, seconds."""
        self.time = time
        """Time of the last frame, seconds."""
        self._shape_sum = torch.zeros_like(body.mean_shape)
        self._weight = 0.0
        self._filter = MotionFilter()

    def step(self, person: Prediction, time: float) -> Prediction:
        """The prediction of the frame at `time` (seconds) with smooth meshes, parameters and root depth."""
        body, motion = person.body, Motion.of(person)
        if motion.shape is not None:
            weight = 1.0 if person.confidence is None else person.confidence
            self._shape_sum = self._shape_sum + (weight + 1e-6) * motion.shape
            self._weight += weight + 1e-6
            motion = motion.with_shape(body, self._shape_sum / self._weight)
        motion = self._filter.step(motion, time - self.time)
        self.time = time
        params = motion.params(body)
        mesh = None
        if params is not None:
            vertices = body(params).vertices
            mesh = BodyMesh(vertices, body.joint_regressor @ vertices)
        return dataclasses.replace(
            person,
            lixel_mesh=motion.lixel_mesh(body),
            root_depth=float(motion.depth),
            params=params,
            parametric_mesh=mesh,
        )
