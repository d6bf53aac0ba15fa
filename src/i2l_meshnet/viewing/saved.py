"""Saved results of photos and clips, read back as people in space (files as in docs/outputs.md)."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import read_arrays, read_json, require_shapes
from i2l_meshnet.prediction.results import MeshKind, Side
from i2l_meshnet.video.track import HandTrack, PersonTrack

_ADVICE = "give the .npz or .json file of a photo or clip that predict wrote, or the folder of one"
_NEEDED = ("body", "faces", "joint_names", "box", "intrinsics", "image_size", "lixel_vertices", "lixel_joints")


@dataclasses.dataclass(frozen=True)
class SavedPerson:
    """A person, or a hand, in T frames; camera frame, metres.

    label: unlike that of others. body: name of the body model. first: number of the first frame. time: seconds, 0
    for a photo. joints: in the order of `joint_names`. lixel: the network's own mesh, where it was saved. params:
    the body's parameters, None of a network without them. hands: of a person of a clip whose hands were looked for.
    """

    label: str
    body: str
    joint_names: tuple[str, ...]
    first: int
    time: Float[np.ndarray, "t"]
    joints: Float[np.ndarray, "t j 3"]
    faces: Int[np.ndarray, "f 3"] | None
    lixel: Float[np.ndarray, "t v 3"] | None
    params: BodyParams | None
    hands: Mapping[Side, HandTrack] = dataclasses.field(default_factory=dict)

    def mesh(self, kind: MeshKind, row: int, body: Body | None) -> Float[np.ndarray, "v 3"] | None:
        """The mesh of a row of frames; None where it is not there. body: what poses the parametric one."""
        if kind == "lixel":
            return None if self.lixel is None else self.lixel[row].astype(np.float32)
        if self.params is None or body is None:
            return None
        with torch.no_grad():
            return body(self.params[row]).vertices.numpy()


@dataclasses.dataclass(frozen=True)
class SavedScene:
    """What was saved of a photo or clip: people, and the camera.

    picture: name of the photo or clip, None where the results do not tell. size: width and height of it, pixels,
    likewise. focal, center: pixels.
    """

    path: Path
    people: tuple[SavedPerson, ...]
    focal: Float[np.ndarray, "2"]
    center: Float[np.ndarray, "2"]
    size: tuple[int, int] | None = None
    picture: str | None = None
    is_clip: bool = False


def read_saved(path: Path) -> SavedScene:
    """Reads a photo's .npz or .json, one person's .npz of a clip, a clip's .json, or a folder with one .json.

    Raises FileError, in one line, for whatever is none of these.
    """
    if path.is_dir():
        records = sorted(record for record in path.glob("*.json") if _read_json(record).get("people") is not None)
        if not records:
            raise FileError(f"{path} holds no results; {_ADVICE}")
        if len(records) > 1:
            raise FileError(f"{path} holds results of {len(records)} pictures; name one, such as {records[0]}")
        return read_saved(records[0])
    if path.suffix == ".npz":
        record = path.with_suffix(".json")
        return _from_arrays(path, _read_json(record) if record.exists() else {})
    if path.suffix != ".json" or not path.exists():
        raise FileError(f"{'cannot use' if path.exists() else 'there is no'} {path}: {_ADVICE}")
    record = _read_json(path)
    try:
        if record.get("format") == "i2l-meshnet prediction":
            return _from_arrays(path.with_name(record["files"]["arrays"]), record)
        if record.get("format") == "i2l-meshnet clip":
            tracks = [path.with_name(person["files"]["arrays"]["npz"]) for person in record["people"]]
            clip, camera = record["clip"], record["intrinsics"]
            scene = SavedScene(
                path,
                tuple(_tracked(track, PersonTrack.load(track)) for track in tracks),
                np.array(camera["focal"], np.float32),
                np.array(camera["center"], np.float32),
                (int(clip["width"]), int(clip["height"])),
                _file_name(clip["file"]),
                True,
            )
            require_shapes(scene)
            return scene
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise FileError(f"{path} is damaged: {error} is missing or wrong; run predict again") from error
    raise FileError(f"{path} is no result of predict; {_ADVICE}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _from_arrays(path: Path, record: dict[str, Any]) -> SavedScene:
    """A photo's .npz, with what its .json tells of the photo; or one person's of a clip."""
    try:
        arrays = read_arrays(path)
    except FileNotFoundError as error:
        raise FileError(f"there is no {path}; {_ADVICE}") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {error}; {_ADVICE}") from error
    if "format" in arrays:
        track = PersonTrack.load(path)
        return SavedScene(path, (_tracked(path, track),), track.focal, track.center, is_clip=True)
    missing = [key for key in _NEEDED if key not in arrays]
    if missing:
        raise FileError(f"{path} lacks {', '.join(missing)}: it is not what predict writes today; run predict again")
    try:
        intrinsics, (width, height) = arrays["intrinsics"].astype(np.float32), arrays["image_size"].tolist()
        people = [_photographed(arrays, "", row, f"person {row}") for row in range(len(arrays["box"]))]
        hands = zip(arrays.get("hand_person", ()), arrays.get("hand_side", ()), strict=True)
        for row, (person, side) in enumerate(hands):
            people.append(_photographed(arrays, "hand_", row, f"person {person}, {side} hand"))
        told = record.get("picture")
        picture = _file_name(told.get("file")) if isinstance(told, dict) else None
        scene = SavedScene(path, tuple(people), intrinsics[:2], intrinsics[2:], (int(width), int(height)), picture)
        require_shapes(scene)
        for person in people:
            _require_person(person)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise FileError(f"{path} is damaged or from another version ({error}); run predict again") from error
    return scene


def _file_name(name: object) -> str | None:
    """The name of a picture, which lies beside its results or in this folder. Raises ValueError for other places."""
    if name is not None and (not isinstance(name, str) or Path(name).name != name or "\0" in name):
        raise ValueError(f"{str(name)[:100]!r} is no name of a file")
    return name


def _require_person(person: SavedPerson) -> None:
    """Raises ValueError where a person's arrays do not fit together."""
    require_shapes(person)
    if len(person.joint_names) != person.joints.shape[1]:
        raise ValueError(f"{person.label} has {person.joints.shape[1]} joints, but {len(person.joint_names)} names")
    if person.faces is not None and person.lixel is not None and person.faces.size:
        low, high = person.faces.min(), person.faces.max()
        if low < 0 or high >= person.lixel.shape[1]:
            raise ValueError(f"{person.label} has faces of vertices that do not exist")
    if person.params is not None:
        require_shapes(person.params)


def _photographed(arrays: dict[str, np.ndarray], prefix: str, row: int, label: str) -> SavedPerson:
    """One row of a photo's arrays; those of hands have a prefix."""

    def rows(key: str) -> np.ndarray:
        return arrays[prefix + key][row : row + 1]

    params = None
    if prefix + "pose_matrix" in arrays:
        values = (torch.from_numpy(rows(key)) for key in ("pose_matrix", "shape", "translation"))
        params = BodyParams(*values)
    return SavedPerson(
        label=label,
        body=str(arrays[prefix + "body"][row]),
        joint_names=tuple(arrays[prefix + "joint_names"].tolist()),
        first=0,
        time=np.zeros(1),
        joints=rows("lixel_joints" if params is None else "param_joints"),
        faces=arrays[prefix + "faces"],
        lixel=rows("lixel_vertices"),
        params=params,
    )


def _tracked(path: Path, track: PersonTrack) -> SavedPerson:
    lixel = None
    if track.vertices is not None and track.origin is not None:
        lixel = track.vertices + track.origin[:, None].astype(np.float32)
    person = SavedPerson(
        label=path.stem,
        body=track.body,
        joint_names=track.joint_names,
        first=int(track.frame[0]),
        time=track.time,
        joints=track.joints,
        faces=track.faces,
        lixel=lixel,
        params=track.params,
        hands=track.hands,
    )
    try:
        _require_person(person)
    except ValueError as error:
        raise FileError(f"{path} is damaged: {error}; run predict again") from error
    return person
