"""`evaluate --data coco-keypoints`: projected joints on photos against annotated keypoints, PCK of the box."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh
from i2l_meshnet.data.sources.base import CocoFile
from i2l_meshnet.data.sources.custom import named_joints
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation.clips import require_regressor
from i2l_meshnet.evaluation.report import write_table
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.io import atomic_path
from i2l_meshnet.skeletons import HALPE26

NAME = "coco-keypoints"
THRESHOLDS = (0.05, 0.1, 0.2)
"""Of the box's longer side: how far a joint may lie off to count as found."""


@runtime_checkable
class Person(Protocol):
    """What is scored of a predicted person: meshes in the camera frame, metres; keypoints in picture pixels."""

    @property
    def lixel_mesh(self) -> BodyMesh: ...
    @property
    def parametric_mesh(self) -> BodyMesh | None: ...
    @property
    def keypoints(self) -> Float[Tensor, "k 3"] | None: ...


@runtime_checkable
class People(Protocol):
    """The predicted people of a picture, in the order of their boxes."""

    @property
    def camera(self) -> Camera: ...
    def __iter__(self) -> Iterator[Person]: ...


Predict = Callable[[Path, Sequence[Sequence[float]]], People]
"""Picture and boxes (x, y, width, height; px) to the people in them."""


@dataclasses.dataclass(frozen=True)
class LabelledPerson:
    """An annotation: its picture, box (x, y, width, height; px) and keypoints (x, y, 0 where not labelled)."""

    id: int
    picture: str
    box: tuple[float, ...]
    keypoints: Float[Tensor, "k 3"]


def evaluate_photos(
    body: Body,
    predict: Predict,
    annotations: Path,
    images: Path,
    out: Path,
    weights: str,
    samples: int | None = None,
    console: Console | None = None,
) -> Iterator[str | Table]:
    """Scores a predictor on a COCO file of keypoints; yields what to print, writes `metrics.json` and tables.

    Joints are read off both meshes, projected with the camera that the predictor assumes, and compared with those
    keypoints of the file that `HALPE26` names; the detector's own keypoints are scored beside them. samples: the first
    so many people only. Raises InputError for a body other than Anny or where nobody is to be scored, FileError for an
    unreadable file.
    """
    regressor = require_regressor(body, NAME)
    joints, people, left_out = read_people(annotations, images)
    people = people[:samples]
    scored = [joint for joint in joints if joint in HALPE26.joints]
    columns = [joints.index(joint) for joint in scored]
    rows = [HALPE26.index(joint) for joint in scored]
    by_picture: dict[str, list[LabelledPerson]] = {}
    for person in people:
        by_picture.setdefault(person.picture, []).append(person)
    errors: dict[str, list[Tensor]] = {}
    order: list[LabelledPerson] = []
    bar = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bar, console=console, disable=console is None or not console.is_terminal) as progress:
        for picture, members in progress.track(by_picture.items()):
            found = predict(images / picture, [person.box for person in members])
            for person, answer in zip(members, found, strict=True):
                order.append(person)
                for kind, points in _points(answer, found.camera, regressor).items():
                    errors.setdefault(kind, []).append(box_errors(points[rows], person, columns))
    whole = {kind: torch.stack(parts) for kind, parts in errors.items()}
    kinds = ", ".join(f"PCK@{threshold:g}" for threshold in THRESHOLDS)
    for kind, values in whole.items():
        shares = " / ".join("-" if v is None else f"{100 * v:.1f}" for v in shares_within(values.flatten()))
        source = "the detector's keypoints" if kind == "keypoints" else f"{kind} mesh"
        yield f"{kinds} from {source}: {shares} %"
    by_joint = [
        {
            "joint": joint,
            "labelled": int((~next(iter(whole.values()))[:, i].isnan()).sum()),
            **{
                f"{kind}_pck_{threshold:g}": share
                for kind, values in whole.items()
                for threshold, share in zip(THRESHOLDS, shares_within(values[:, i]), strict=True)
            },
        }
        for i, joint in enumerate(scored)
    ]
    yield _joint_table(by_joint)
    by_person = [
        {
            "id": person.id,
            "picture": person.picture,
            **{f"{kind}_mean_error": float(values[i].nanmean()) for kind, values in whole.items()},
        }
        for i, person in enumerate(order)
    ]
    content: dict[str, Any] = {
        "data": NAME,
        "weights": weights,
        "annotations": annotations.name,
        "people": len(order),
        "pictures": len(by_picture),
        "left_out": left_out,
        "pck": {
            kind: {f"{t:g}": share for t, share in zip(THRESHOLDS, shares_within(values.flatten()), strict=True)}
            for kind, values in whole.items()
        },
        "joints": by_joint,
    }
    with atomic_path(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_table(out / "joints.csv", by_joint)
    write_table(out / "samples.csv", by_person)
    without = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    missing = f"; left out: {without}" if without else ""
    yield f"{len(order)} people in {len(by_picture)} pictures{missing}; results in {out}"


def read_people(path: Path, images: Path) -> tuple[tuple[str, ...], list[LabelledPerson], dict[str, int]]:
    """Names of the keypoints, the people of a COCO file whose pictures are in `images`, and how many were left out.

    Raises FileError for a file of another kind, InputError where nobody is left.
    """
    data = CocoFile(path)
    joints = named_joints(data)
    left_out = {"crowds": 0, "without labelled keypoints": 0, f"whose pictures are not in {images}": 0}
    crowd, bare, absent = left_out
    people = []
    for annotation, image in data.people():
        try:
            keypoints = torch.tensor(annotation["keypoints"], dtype=torch.float32)
            box = tuple(float(value) for value in annotation["bbox"])
            picture = str(image["file_name"])
            number = int(annotation["id"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path}: annotation {annotation.get('id')} is malformed ({error!r})") from error
        if keypoints.shape != (3 * len(joints),) or len(box) != 4:
            raise FileError(
                f"{path}: annotation {number} has {len(keypoints) / 3:g} joints and a box of {len(box)} values, not "
                f"{len(joints)} and 4"
            )
        keypoints = keypoints.reshape(-1, 3)
        if annotation.get("iscrowd"):
            left_out[crowd] += 1
        elif not bool((keypoints[:, 2] > 0).any()) or min(box[2:]) <= 0:
            left_out[bare] += 1
        elif not (images / picture).is_file():
            left_out[absent] += 1
        else:
            people.append(LabelledPerson(number, picture, box, keypoints))
    if not people:
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "the file is empty"
        raise InputError(f"{path} has nobody to score: {told}")
    return joints, people, left_out


def box_errors(points: Float[Tensor, "n 2"], person: LabelledPerson, columns: Sequence[int]) -> Float[Tensor, "n"]:
    """Distances from the keypoints `columns` of an annotation, in its box's longer side; NaN where not labelled."""
    labels = person.keypoints[list(columns)]
    distance = (points - labels[:, :2]).norm(dim=-1) / max(person.box[2:])
    return distance.masked_fill(labels[:, 2] <= 0, torch.nan)


def shares_within(errors: Float[Tensor, "n"]) -> list[float | None]:
    """The share of the known errors (not NaN) below each of `THRESHOLDS`; None where none is known."""
    known = errors[~errors.isnan()]
    return [float((known <= threshold).float().mean()) if len(known) else None for threshold in THRESHOLDS]


def _points(person: Person, camera: Camera, regressor: Float[Tensor, "26 v"]) -> dict[str, Float[Tensor, "26 2"]]:
    """The detector's joints in picture pixels, by what they come from."""
    meshes = {"lixel": person.lixel_mesh, "param": person.parametric_mesh}
    found = {
        kind: camera.project(regressor.cpu() @ mesh.vertices.float())
        for kind, mesh in meshes.items()
        if mesh is not None
    }
    if person.keypoints is not None and len(person.keypoints) == len(HALPE26):
        found["keypoints"] = person.keypoints[:, :2]
    return found


def _joint_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("joint", "labelled", title="PCK by joint, %")
    names = [name for name in rows[0] if "_pck_" in name]
    for name in names:
        table.add_column(name.replace("_pck_", "\n@"), justify="right")
    for row in rows:
        cells = ("-" if row[name] is None else f"{100 * row[name]:.1f}" for name in names)
        table.add_row(row["joint"], str(row["labelled"]), *cells)
    return table
