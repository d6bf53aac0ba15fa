"""Clips for tests, and a predictor that knows where the people in them are."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from predict_options import clip_options

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.video.options import ClipOptions

SIZE = (320, 240)
CAMERA = Camera(torch.tensor([300.0, 300.0]), torch.tensor([159.5, 119.5]))
RATE = 20


@dataclasses.dataclass(frozen=True)
class Walker:
    """A person on the stage: position (metres), and whether network and detector see them, by time (seconds)."""

    position: Callable[[float], tuple[float, float, float]]
    seen: Callable[[float], bool] = lambda time: True
    detected: Callable[[float], bool] = lambda time: True


class Stage(MeshPredictor):
    """A predictor of walkers. It reads the number of a frame from the top left pixels: see `frame_pixels`.

    A box shows the nearest walker whose centre is inside it. An empty box gives an unreliable mesh.
    """

    def __init__(self, body: Body, walkers: Sequence[Walker], noise: float = 0.0) -> None:
        self.body, self.walkers, self.noise = body.eval(), walkers, noise
        # An object with attributes, like the real detector.
        self.detector = functools.partial(self._detector)  # type: ignore[assignment]
        self.network_facts: dict[str, Any] = {"weights": "stage"}
        self.hands = None
        self.looks: list[int] = []
        self.detections: list[float] = []

    def time(self, pixels: np.ndarray) -> float:
        return round(float(pixels[:8, :8].mean()) / 4) / RATE

    def meshes(self, time: float) -> list[BodyMesh]:
        return [self.body(self.params(walker, time)) for walker in self.walkers]

    def params(self, walker: Walker, time: float) -> BodyParams:
        jitter = np.random.default_rng(round(1000 * time)).normal(0, self.noise, 3) if self.noise else np.zeros(3)
        position = torch.tensor(walker.position(time)) + torch.from_numpy(jitter).float()
        return dataclasses.replace(self.body.rest_params(), translation=position)

    def box(self, mesh: BodyMesh) -> tuple[float, float, float, float]:
        flat = CAMERA.project(mesh.vertices)
        low, high = flat.amin(0), flat.amax(0)
        x, y, w, h = torch.cat([low, high - low]).tolist()
        return x, y, w, h

    def _detector(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        time = self.time(pixels)
        self.detections.append(time)
        pairs = zip(self.walkers, self.meshes(time), strict=True)
        boxes = [self.box(mesh) for walker, mesh in pairs if walker.seen(time) and walker.detected(time)]
        return np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)

    def predict_batch(
        self,
        images: Sequence[np.ndarray],
        people: Sequence[Sequence[PersonBox]],
        cameras: Sequence[Camera],
        root_depth: float | None = None,
    ) -> list[list[Prediction]]:
        self.looks.append(len(people[0]))
        time = self.time(images[0])
        return [[self.look(person, time) for person in people[0]]]

    def look(self, person: PersonBox, time: float) -> Prediction:
        x, y, w, h = person.box
        found: list[tuple[float, Walker, BodyMesh]] = []
        for walker, mesh in zip(self.walkers, self.meshes(time), strict=True):
            left, top, width, height = self.box(mesh)
            inside = x < left + width / 2 < x + w and y < top + height / 2 < y + h
            if walker.seen(time) and inside:
                found.append((float(mesh.vertices[:, 2].mean()), walker, mesh))
        _, walker, mesh = min(found, key=lambda one: one[0]) if found else (0.0, self.walkers[0], self.meshes(time)[0])
        root = float(mesh.joints[self.body.skeleton.root_index, 2])
        return Prediction(
            body=self.body,
            box=torch.tensor(person.box),
            score=person.score,
            camera=CAMERA,
            crop=Crop(torch.eye(3)[:2], torch.tensor(0.0), torch.tensor(False)),
            lixels=mesh.vertices,
            joints_image=CAMERA.project(mesh.joints),
            lixel_mesh=mesh,
            root_depth=root,
            root_depth_source="solved",
            params=self.params(walker, time),
            parametric_mesh=mesh,
            confidence=0.8 if found else 0.1,
            reliable=bool(found),
        )


def frame_pixels(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """An image that shows its number and has no symmetry."""
    width, height = size
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[: height // 2, width // 2 :] = (160, 60, 60)
    picture[:16, :16] = 4 * number
    return picture


def write_clip(
    path: Path,
    times: Sequence[float],
    size: tuple[int, int] = SIZE,
    sound: str | None = None,
    rotation: int = 0,
    codec: str = "libx264",
    pixel_aspect: Fraction | None = None,
    pictures: bool = True,
) -> Path:
    """Frames at `times` (seconds), in which `Stage.time` can be read, and a tone encoded by the codec `sound`."""
    with av.open(path, "w") as container:
        video: Any = container.add_stream(codec, rate=RATE) if pictures else None
        if video is not None:
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
            if pixel_aspect:
                video.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation:
                video.set_display_rotation(rotation)
        audio: Any = container.add_stream(sound, rate=16000) if sound else None
        if audio is not None:
            audio.layout = "mono"
        for number, time in enumerate(times if pictures else ()):
            frame = av.VideoFrame.from_ndarray(frame_pixels(number, size), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode())
        if audio is not None:
            samples = round((times[-1] + 1 / RATE) * 16000)
            tone = (np.sin(np.arange(samples) * 0.2) * 9000).astype(np.int16)
            for start in range(0, samples, 1024):
                part = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
                part.sample_rate, part.pts, part.time_base = 16000, start, Fraction(1, 16000)
                container.mux(audio.encode(part))
            container.mux(audio.encode())
    return path


def steady(count: int) -> list[float]:
    return [number / RATE for number in range(count)]


def stage_options(*inputs: str, out: Path, **changes: Any) -> tuple[PredictOptions, ClipOptions]:
    """Options of `predict` with the camera of `Stage`."""
    return clip_options(*inputs, out=out, intrinsics=(*CAMERA.focal.tolist(), *CAMERA.center.tolist()), **changes)
