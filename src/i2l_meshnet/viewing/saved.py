"""Reads saved results of photos and clips (docs/outputs.md describes the files)."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import read_arrays, read_json, reading
from i2l_meshnet.prediction.results import MeshKind
from i2l_meshnet.video.track import PersonTrack, require_consistent

_ADVICE = "give a .npz or .json file that predict wrote, or the folder of one result"
_DAMAGED = "run predict again"
_NO_NAMES = np.array([], str)


@dataclasses.dataclass(frozen=True)
class SavedPerson:
    """A person, or a hand in a photo. label: unique in the scene. track: one frame for a photo."""

    label: str
    track: PersonTrack

    def mesh(self, kind: MeshKind, row: int, body: Body | None) -> Float[np.ndarray, "v 3"] | None:
        """The mesh in a row of the track, or None. body: needed for the parametric mesh."""
        track = self.track
        if kind == "lixel":
            if track.vertices is None or track.origin is None:
                return None
            return track.vertices[row].astype(np.float32) + track.origin[row]
        params = track.params
        if params is None or body is None:
            return None
        with torch.no_grad():
            return body(params[row]).vertices.numpy()


@dataclasses.dataclass(frozen=True)
class SavedScene:
    """The people of a photo or clip.

    picture: name of the photo or clip, None if unknown. size: its width and height, pixels, or None.
    """

    path: Path
    people: tuple[SavedPerson, ...]
    size: tuple[int, int] | None = None
    picture: str | None = None
    is_clip: bool = False


def read_saved(path: Path) -> SavedScene:
    """Read a photo's .npz or .json, one person's .npz of a clip, a clip's .json, or a folder with one .json.

    Raises FileError for anything else.
    """
    if path.is_dir():
        records = sorted(record for record in path.glob("*.json") if _record(record).get("people") is not None)
        if not records:
            raise FileError(f"{path} has no results; {_ADVICE}")
        if len(records) > 1:
            raise FileError(f"{path} has {len(records)} results; name one, such as {records[0]}")
        return read_saved(records[0])
    with reading(path, "a complete result of predict", _DAMAGED, _ADVICE):
        if path.suffix == ".npz":
            record = path.with_suffix(".json")
            return _read_arrays(path, _record(record) if record.exists() else {})
        record = _record(path) if path.suffix == ".json" else {}
        if record.get("format") == "i2l-meshnet prediction":
            return _read_arrays(path.with_name(record["files"]["arrays"]), record)
        if record.get("format") != "i2l-meshnet clip":
            path.stat()
            raise FileError(f"{path} is no result of predict; {_ADVICE}")
        tracks = [path.with_name(person["files"]["arrays"]["npz"]) for person in record["people"]]
        people = tuple(SavedPerson(track.stem, PersonTrack.load(track)) for track in tracks)
        clip = record["clip"]
        return SavedScene(path, people, (int(clip["width"]), int(clip["height"])), _file_name(clip["file"]), True)


def _record(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty for other content."""
    with reading(path, "a result of predict", missing=_ADVICE):
        try:
            record = read_json(path)
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}


def _read_arrays(path: Path, record: dict[str, Any]) -> SavedScene:
    """Read the .npz of a photo or of a clip's person. record: content of the photo's .json."""
    with reading(path, "a complete result of predict", _DAMAGED, _ADVICE):
        arrays = read_arrays(path)
        if "format" in arrays:
            return SavedScene(path, (SavedPerson(path.stem, PersonTrack.load(path)),), is_clip=True)
        width, height = arrays["image_size"].tolist()
        people = [SavedPerson(f"person {row}", _photographed(arrays, "", row)) for row in range(len(arrays["box"]))]
        hands = zip(arrays.get("hand_person", ()), arrays.get("hand_side", ()), strict=True)
        for row, (person, side) in enumerate(hands):
            people.append(SavedPerson(f"person {person}, {side} hand", _photographed(arrays, "hand_", row)))
        picture = record.get("picture")
        name = _file_name(picture.get("file")) if isinstance(picture, dict) else None
        return SavedScene(path, tuple(people), (int(width), int(height)), name)


def _file_name(name: object) -> str | None:
    """A picture's file name. Raises ValueError for a path in another folder."""
    if name is not None and (not isinstance(name, str) or Path(name).name != name or "\0" in name):
        raise ValueError(f"{str(name)[:100]!r} is not a file name")
    return name


def _photographed(arrays: dict[str, np.ndarray], prefix: str, row: int) -> PersonTrack:
    """One row of a photo's arrays as a track of one frame. prefix: of the array names."""

    def rows(key: str) -> np.ndarray:
        return arrays[prefix + key][row : row + 1]

    has_params = prefix + "pose_matrix" in arrays
    track = PersonTrack(
        body=str(rows("body")[0]),
        joint_names=tuple(arrays[prefix + "joint_names"].tolist()),
        bone_names=tuple(arrays.get(prefix + "bone_names", _NO_NAMES).tolist()),
        shape_names=tuple(arrays.get(prefix + "shape_names", _NO_NAMES).tolist()),
        time=np.zeros(1),
        frame=np.zeros(1, np.int64),
        focal=arrays["intrinsics"][:2],
        center=arrays["intrinsics"][2:],
        box=rows("box"),
        confidence=rows("confidence"),
        bridged=np.zeros(1, bool),
        joints=rows("param_joints" if has_params else "lixel_joints"),
        pose=rows("pose_matrix") if has_params else None,
        shape=rows("shape")[0] if has_params else None,
        translation=rows("translation") if has_params else None,
        vertices=rows("lixel_vertices"),
        origin=np.zeros((1, 3), np.float32),
        faces=arrays[prefix + "faces"],
    )
    require_consistent(track)
    return track
