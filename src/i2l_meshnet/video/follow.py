"""Video in Python: people in every frame, lazily, with numbers that stay theirs and steady motion."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from i2l_meshnet.bodies.base import BodyMesh
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.boxes import PersonBox, as_box, require_inside
from i2l_meshnet.prediction.detect import detected_people
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.overlay import draw_overlay
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import MeshKind, Prediction
from i2l_meshnet.video.motion import LiveSmoother, Motion
from i2l_meshnet.video.source import Clip, Frame
from i2l_meshnet.video.tracking import DETECT_EVERY, MAX_GAP, Tracker

SAMPLES = 2
"""Samples along each side of a pixel in the drawings of video."""


@dataclasses.dataclass(frozen=True)
class TrackedFrame:
    """One frame and the people seen in it, by numbers that are the same in all frames.

    number: of the frame, from 0. time: seconds from the start. pixels: upright RGB.
    """

    number: int
    time: float
    pixels: UInt8[np.ndarray, "h w 3"]
    camera: Camera
    people: dict[int, Prediction]

    def overlay(self, show: MeshKind = "lixel") -> UInt8[np.ndarray, "h w 3"]:
        """The picture with everybody's mesh on it."""
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
    """The people of every frame of a video file, computed while you iterate; nothing is kept.

    Three lines: `predictor = MeshPredictor.load()`, `for frame in predict_video(predictor, "clip.mp4"):`,
    `    print(frame.time, frame.people)`. smooth: "one-euro" looks back only. boxes: (x, y, width, height), pixels, of
    the people of the first frame, in place of the detector. detect_every: frames from one run of the detector to the
    next. max_gap: seconds after which an unseen person's number is given up. Raises UserError.
    """
    source = Clip(Path(clip))
    camera, _ = (intrinsics or Intrinsics()).camera(source.width, source.height)
    tracker = make_tracker(predictor, camera, (source.width, source.height), boxes, detect_every, max_gap)
    return follow(tracker, source.frames(), smooth)


def make_tracker(
    predictor: MeshPredictor,
    camera: Camera,
    size: tuple[int, int],
    boxes: Sequence[Sequence[float] | PersonBox] | None = None,
    detect_every: int = DETECT_EVERY,
    max_gap: float = MAX_GAP,
    root_depth: float | None = None,
) -> Tracker:
    """A tracker that starts from the boxes given, else from the detector's, else from the whole picture.

    size: (width, height). Raises InputError for a box outside the picture and for values out of range.
    """
    if detect_every < 1 or not max_gap > 0:
        raise InputError("the detector runs every 1 or more frames, and a gap lasts more than 0 seconds")
    start = [] if boxes is None else [as_box(box) for box in boxes]
    for box in start:
        require_inside(box, *size, "the first frame")
    detect = None
    if boxes is None and predictor.detector is not None:
        detect = functools.partial(detected_people, predictor.detector)
    elif boxes is None:
        start = [PersonBox((0.0, 0.0, float(size[0]), float(size[1])))]
    return Tracker(predictor, camera, detect, start, detect_every, max_gap, root_depth)


def follow(
    tracker: Tracker, frames: Iterable[Frame], smooth: Literal["one-euro", "off"] = "one-euro"
) -> Iterator[TrackedFrame]:
    """The people of frames as they come in."""
    smoothers: dict[int, tuple[LiveSmoother, float]] = {}
    for frame in frames:
        people = tracker.step(frame.pixels, frame.time)
        if smooth == "one-euro":
            smoothers = {who: kept for who, kept in smoothers.items() if frame.time - kept[1] <= tracker.max_gap}
            for who, person in people.items():
                smoother, before = smoothers.get(who) or (LiveSmoother(person.body), frame.time)
                smoothers[who] = (smoother, frame.time)
                people[who] = smoothed(person, smoother, frame.time - before)
        yield TrackedFrame(frame.number, frame.time, frame.pixels, tracker.camera, people)


def smoothed(person: Prediction, smoother: LiveSmoother, seconds: float) -> Prediction:
    """A prediction with the smoother's meshes, parameters and root depth. seconds: since its last one."""
    weight = 1.0 if person.confidence is None else person.confidence
    motion = smoother.step(Motion.of(person), weight, seconds)
    params = motion.params(person.body)
    mesh = None
    if params is not None:
        vertices = person.body(params).vertices
        mesh = BodyMesh(vertices, person.body.joint_regressor @ vertices)
    return dataclasses.replace(
        person,
        lixel_mesh=motion.lixel_mesh(person.body),
        root_depth=float(motion.depth),
        params=params,
        parametric_mesh=mesh,
    )
