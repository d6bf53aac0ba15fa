"""One person of a clip over time, and the .npz file of their track (described in docs/outputs.md)."""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.fingers import with_hands
from i2l_meshnet.errors import InputError
from i2l_meshnet.io import atomic_path, read_arrays, reading, require_shapes
from i2l_meshnet.prediction.hands import SIDES
from i2l_meshnet.prediction.results import Side

FORMAT = "i2l-meshnet person track 1"
T = TypeVar("T", "HandTrack", "PersonTrack")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PosedTrack:
    """A body in T frames. Metres, radians, camera frame (x right, y down, z forward).

    body: name of the body model. confidence: mean of the 2D keypoints, 0 to 1; NaN for a network without confidences,
    0 in bridged frames. bridged: frames in which the body was not seen and the motion is interpolated. joints: in the
    order of `joint_names`; those of the parametric mesh, or of the lixel mesh if there is none. pose: local rotations
    as in `BodyParams`. shape: the same in all frames. translation: of the body model. Pose, shape and translation are
    None for a network without parameters.
    """

    body: str
    joint_names: tuple[str, ...]
    bone_names: tuple[str, ...]
    confidence: Float32[np.ndarray, "t"]
    bridged: Bool[np.ndarray, "t"]
    joints: Float32[np.ndarray, "t j 3"]
    pose: Float32[np.ndarray, "t k 3 3"] | None = None
    shape: Float32[np.ndarray, "s"] | None = None
    translation: Float32[np.ndarray, "t 3"] | None = None

    @property
    def params(self) -> BodyParams | None:
        """The body's parameters in every frame; the batch axis is time."""
        if self.pose is None or self.shape is None or self.translation is None:
            return None
        shape = torch.from_numpy(self.shape).expand(len(self.pose), -1)
        return BodyParams(torch.from_numpy(self.pose), shape, torch.from_numpy(self.translation))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandTrack(_PosedTrack):
    """A person's hand in the frames of a `PersonTrack`.

    present: whether the hand was followed in a frame. In other frames, joints and translation are NaN, the pose is the
    identity and the confidence is 0.
    """

    present: Bool[np.ndarray, "t"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonTrack(_PosedTrack):
    """A person in every frame from the first to the last in which they were seen; short gaps are bridged.

    time: seconds from the start of the clip. frame: numbers from 0. focal, center: of the camera, pixels of the upright
    frame. box: (x, y, width, height), pixels. vertices: of the lixel mesh relative to `origin`, if they were requested;
    in half precision (error under 1 mm). hands: the hands that were seen, if hands were requested.
    """

    shape_names: tuple[str, ...]
    time: Float[np.ndarray, "t"]
    frame: Int64[np.ndarray, "t"]
    focal: Float32[np.ndarray, "2"]
    center: Float32[np.ndarray, "2"]
    box: Float32[np.ndarray, "t 4"]
    vertices: Float[np.ndarray, "t v 3"] | None = None
    origin: Float32[np.ndarray, "t 3"] | None = None
    faces: Int64[np.ndarray, "f 3"] | None = None
    hands: Mapping[Side, HandTrack] = dataclasses.field(default_factory=dict)

    def save(self, path: Path | str) -> Path:
        """Write the track as .npz, completely or not at all, and return the path. An existing file is replaced."""
        path = Path(path)
        arrays = _arrays(self)
        for side, hand in self.hands.items():
            arrays |= {f"{side}_hand_{name}": value for name, value in _arrays(hand).items()}
        versions = json.dumps({"i2l-meshnet": version("i2l-meshnet"), "numpy": np.__version__})
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, format=np.array(FORMAT), versions=np.array(versions), **arrays)  # pyright: ignore[reportArgumentType]
        return path

    @classmethod
    def load(cls, path: Path | str) -> "PersonTrack":
        """Read a file that `save` wrote. Raise FileError for any other file."""
        path = Path(path)
        with reading(path, "a person's track", "give the person_NN.npz of a clip"):
            arrays: dict[str, Any] = read_arrays(path)
            if str(arrays.pop("format", "")) != FORMAT:
                raise ValueError(f"it is not of the format '{FORMAT}'")
            arrays.pop("versions", None)
            hands = {side: _make(HandTrack, found) for side in SIDES if (found := _pop(arrays, f"{side}_hand_"))}
            track = dataclasses.replace(_make(cls, arrays), hands=hands)
            require_consistent(track)
        return track


def require_consistent(track: PersonTrack) -> None:
    """Raise ValueError if the arrays of a track do not fit together."""
    for part in (track, *track.hands.values()):
        require_shapes(part)
        if len(part.joint_names) != part.joints.shape[1]:
            raise ValueError(f"it has {part.joints.shape[1]} joints, but {len(part.joint_names)} names of joints")
    if len(track.time) == 0 or any(len(hand.present) != len(track.time) for hand in track.hands.values()):
        raise ValueError("it has no frames, or hands of other frames")
    if track.faces is None or track.vertices is None or not track.faces.size:
        return
    if track.faces.min() < 0 or track.faces.max() >= track.vertices.shape[1]:
        raise ValueError("it has faces of vertices that do not exist")


def rigged(body: Body, track: PersonTrack) -> tuple[Body, BodyParams]:
    """The body and its parameters in every frame, for animation. Hands move the fingers, if the body has fingers.

    Raises InputError for a track without parameters.
    """
    params = track.params
    if params is None:
        raise InputError("a track without body parameters cannot move a skeleton")
    poses: dict[Side, tuple[str, Tensor, Tensor]] = {
        side: (hand.body, torch.from_numpy(hand.pose), torch.from_numpy(hand.present))
        for side, hand in track.hands.items()
        if hand.pose is not None
    }
    return with_hands(body, params, poses)


def _arrays(track: _PosedTrack) -> dict[str, np.ndarray]:
    given = {field.name: getattr(track, field.name) for field in dataclasses.fields(track) if field.name != "hands"}
    return {name: np.asarray(value) for name, value in given.items() if value is not None}


def _pop(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Remove the arrays whose names start with a prefix, and return them by their names without it."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}


def _make(kind: type[T], arrays: dict[str, Any]) -> T:
    """Make a track from the arrays of a file. Raise KeyError or TypeError if arrays are missing or unknown."""
    texts = {name: tuple(value.tolist()) for name, value in arrays.items() if name.endswith("_names")}
    return kind(**{**arrays, **texts, "body": str(arrays["body"])})
