"""One person of a clip over time, and the .npz file of it (described in docs/outputs.md)."""

import dataclasses
import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int64

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.errors import FileError
from i2l_meshnet.files import atomic_path

FORMAT = "i2l-meshnet person track 1"


@dataclasses.dataclass(frozen=True)
class PersonTrack:
    """A person in every frame from the first to the last one seen (T frames; short gaps bridged). Metres, radians.

    Camera frame: x right, y down, z forward. body: name of the body model. time: seconds from the clip's start;
    frame: numbers from 0. pose: local rotations as in `BodyParams`; shape: one for the clip; translation: of the body
    model; all three None for a network without parameters. focal, center: of the camera, pixels of the upright
    picture. box: (x, y, width, height), pixels. confidence: of the 2D keypoints, 0 to 1, NaN where the network has
    none, 0 in bridged frames. bridged: frames in which the person was not seen and the motion is interpolated. joints:
    in the order of `joint_names`, of the parametric mesh, or of the lixel mesh where there is none. vertices: of the
    lixel mesh relative to `origin`, in half precision (under 1 mm), where they were asked for.
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

    @property
    def params(self) -> BodyParams | None:
        """The body's parameters in every frame; the batch axis is time."""
        if self.pose is None or self.shape is None or self.translation is None:
            return None
        shape = torch.from_numpy(self.shape).expand(len(self.time), -1)
        return BodyParams(torch.from_numpy(self.pose), shape, torch.from_numpy(self.translation))

    def save(self, path: Path | str) -> Path:
        """Writes the track as .npz, whole or not at all, and returns its path. Replaces a file."""
        path = Path(path)
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {name: np.asarray(value) for name, value in given.items() if value is not None}
        versions = json.dumps({"i2l-meshnet": version("i2l-meshnet"), "numpy": np.__version__})
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, format=np.array(FORMAT), versions=np.array(versions), **arrays)  # pyright: ignore[reportArgumentType]
        return path

    @classmethod
    def load(cls, path: Path | str) -> "PersonTrack":
        """Reads what `save` wrote. Raises FileError, in one line, for any other file."""
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays: dict[str, Any] = dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise FileError(f"cannot read {path}: {error}; it is no person's track: give a person_NN.npz") from error
        if str(arrays.pop("format", "")) != FORMAT:
            raise FileError(f"cannot read {path}: it is not of the format '{FORMAT}'; give a person_NN.npz")
        arrays.pop("versions", None)
        try:
            names = {
                name: tuple(str(item) for item in arrays.pop(name))
                for name in ("joint_names", "bone_names", "shape_names")
            }
            return cls(body=str(arrays.pop("body")), **names, **arrays)
        except (KeyError, TypeError) as error:
            raise FileError(f"cannot read {path}: a value is missing or unknown: {error}") from error
