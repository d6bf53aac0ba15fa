"""One person of a clip over time, and the .npz file of it (described in docs/outputs.md)."""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int64

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import atomic_path, read_arrays, require_shapes
from i2l_meshnet.prediction.hands import SIDES
from i2l_meshnet.prediction.results import Side

FORMAT = "i2l-meshnet person track 1"
T = TypeVar("T", "HandTrack", "PersonTrack")


@dataclasses.dataclass(frozen=True)
class HandTrack:
    """A person's hand in the frames of a `PersonTrack` (T). Metres, radians, camera frame.

    body: name of the hand's model. present: whether the hand was followed in a frame; where not, joints and
    translation are NaN, and the pose is the identity. bridged: present, but not seen. The others as for the person;
    pose, shape and translation are None for a network without parameters.
    """

    body: str
    joint_names: tuple[str, ...]
    bone_names: tuple[str, ...]
    present: Bool[np.ndarray, "t"]
    bridged: Bool[np.ndarray, "t"]
    confidence: Float32[np.ndarray, "t"]
    joints: Float32[np.ndarray, "t j 3"]
    pose: Float32[np.ndarray, "t k 3 3"] | None = None
    shape: Float32[np.ndarray, "s"] | None = None
    translation: Float32[np.ndarray, "t 3"] | None = None

    @property
    def params(self) -> BodyParams | None:
        """The hand's parameters in every frame; of account only where `present`."""
        return _params(self.pose, self.shape, self.translation)


@dataclasses.dataclass(frozen=True)
class PersonTrack:
    """A person in every frame from the first to the last one seen (T frames; short gaps bridged). Metres, radians.

    Camera frame: x right, y down, z forward. body: name of the body model. time: seconds from the clip's start;
    frame: numbers from 0. pose: local rotations as in `BodyParams`; shape: one for the clip; translation: of the body
    model; all three None for a network without parameters. focal, center: of the camera, pixels of the upright
    picture. box: (x, y, width, height), pixels. confidence: of the 2D keypoints, 0 to 1, NaN where the network has
    none, 0 in bridged frames. bridged: frames in which the person was not seen and the motion is interpolated. joints:
    in the order of `joint_names`, of the parametric mesh, or of the lixel mesh where there is none. vertices: of the
    lixel mesh relative to `origin`, in half precision (under 1 mm), where they were asked for. hands: those that were
    looked for and seen.
    """

    body: str
    joint_names: tuple[str, ...]
    bone_names: tuple[str, ...]
    shape_names: tuple[str, ...]
    time: Float[np.ndarray, "t"]
    frame: Int64[np.ndarray, "t"]
    focal: Float32[np.ndarray, "2"]
    center: Float32[np.ndarray, "2"]
    box: Float32[np.ndarray, "t 4"]
    confidence: Float32[np.ndarray, "t"]
    bridged: Bool[np.ndarray, "t"]
    joints: Float32[np.ndarray, "t j 3"]
    pose: Float32[np.ndarray, "t k 3 3"] | None = None
    shape: Float32[np.ndarray, "s"] | None = None
    translation: Float32[np.ndarray, "t 3"] | None = None
    vertices: Float16[np.ndarray, "t v 3"] | None = None
    origin: Float32[np.ndarray, "t 3"] | None = None
    faces: Int64[np.ndarray, "f 3"] | None = None
    hands: Mapping[Side, HandTrack] = dataclasses.field(default_factory=dict)

    @property
    def params(self) -> BodyParams | None:
        """The body's parameters in every frame; the batch axis is time."""
        return _params(self.pose, self.shape, self.translation)

    def save(self, path: Path | str) -> Path:
        """Writes the track as .npz, whole or not at all, and returns its path. Replaces a file."""
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
        """Reads what `save` wrote. Raises FileError, in one line, for any other file."""
        path = Path(path)
        try:
            arrays: dict[str, Any] = read_arrays(path)
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read {path}: {error}; it is no person's track: give a person_NN.npz") from error
        if str(arrays.pop("format", "")) != FORMAT:
            raise FileError(f"cannot read {path}: it is not of the format '{FORMAT}'; give a person_NN.npz")
        arrays.pop("versions", None)
        try:
            hands = {side: _built(HandTrack, found) for side in SIDES if (found := _taken(arrays, f"{side}_hand_"))}
            track = dataclasses.replace(_built(cls, arrays), hands=hands)
            for part in (track, *hands.values()):
                require_shapes(part)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"cannot read {path}: a value is missing or unknown: {error}") from error
        if len(track.time) == 0 or any(len(hand.present) != len(track.time) for hand in hands.values()):
            raise FileError(f"cannot read {path}: it has no frames, or hands of other ones")
        return track


def _params(pose: np.ndarray | None, shape: np.ndarray | None, translation: np.ndarray | None) -> BodyParams | None:
    if pose is None or shape is None or translation is None:
        return None
    return BodyParams(
        torch.from_numpy(pose), torch.from_numpy(shape).expand(len(pose), -1), torch.from_numpy(translation)
    )


def _arrays(track: HandTrack | PersonTrack) -> dict[str, np.ndarray]:
    given = {field.name: getattr(track, field.name) for field in dataclasses.fields(track) if field.name != "hands"}
    return {name: np.asarray(value) for name, value in given.items() if value is not None}


def _taken(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin so, without the prefix; they are taken out."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}


def _built(kind: type[T], arrays: dict[str, Any]) -> T:
    """A track of the arrays of a file. Raises KeyError or TypeError where some are missing or unknown."""
    texts = {name: tuple(value.tolist()) for name, value in arrays.items() if name.endswith("_names")}
    return kind(**{**arrays, **texts, "body": str(arrays["body"])})
