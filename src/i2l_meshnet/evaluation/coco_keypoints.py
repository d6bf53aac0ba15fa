"""`evaluate --data coco-keypoints`: PCK of projected joints relative to the keypoints of a COCO file."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from i2l_meshnet.data.sources.base import CocoFile
from i2l_meshnet.data.sources.custom import named_joints
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation.benchmark import WHOLE, Benchmark, Share, System, keypoint_regressor
from i2l_meshnet.evaluation.report import text_table, write_json, write_table
from i2l_meshnet.io import reading
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.skeletons import HALPE26

NAME = "coco-keypoints"
THRESHOLDS = (0.05, 0.1, 0.2)
"""Maximum distances of a correct joint, relative to the longer side of the annotated box."""
SOURCES = {"lixel": "lixel mesh", "param": "param mesh", "keypoints": "the detector's keypoints"}

Predict = Callable[[Path, Sequence[Sequence[float]]], Sequence[Prediction]]
"""(image, boxes (x, y, width, height; px)) → a prediction per box."""


@dataclasses.dataclass(frozen=True)
class LabelledPerson:
    """An annotation: image, box (x, y, width, height; px) and keypoints (x, y, flag; the flag is 0 if not labelled)."""

    id: int
    picture: str
    box: tuple[float, ...]
    keypoints: Float[Tensor, "k 3"]


class CocoKeypoints(Benchmark[list[LabelledPerson]]):
    """Scores a predictor on a COCO file of keypoints.

    Joints are regressed from both meshes, projected with the predictor's camera, and compared with the keypoints of the
    file that are also in `HALPE26`. The detector's own keypoints are scored too.
    """

    def __init__(
        self,
        system: System,
        annotations: Path,
        images: Path,
        samples: int | None = None,
        predict: Predict | None = None,
    ) -> None:
        """samples: score the first N people only. predict: by default, `MeshPredictor` with the system's network.

        Raise InputError for a body other than Anny or if no person can be scored, FileError for an unreadable file.
        """
        self._regressor = keypoint_regressor(system.body, NAME).cpu()
        self._predict = predict or _predictor(system)
        self.identity = {"data": NAME, "annotations": annotations.name}
        self._settings = {"data": NAME, "weights": system.weights, "annotations": annotations.name}
        self._images = images
        joints, people, self._left_out = read_people(annotations, images)
        self._people = people[:samples]
        self._joints = [joint for joint in joints if joint in HALPE26.joints]
        self._columns = [joints.index(joint) for joint in self._joints]
        self._scored: list[LabelledPerson] = []
        self._errors: dict[str, list[Float[Tensor, "j"]]] = {}

    def __len__(self) -> int:
        return len(self._people)

    def batches(self, share: Share = WHOLE) -> Iterator[list[LabelledPerson]]:
        """The people of each picture."""
        pictures: dict[str, list[LabelledPerson]] = {}
        for person in self._people:
            pictures.setdefault(person.picture, []).append(person)
        yield from share.of(list(pictures.values()))

    def score(self, batch: list[LabelledPerson]) -> None:
        found = self._predict(self._images / batch[0].picture, [person.box for person in batch])
        rows = [HALPE26.index(joint) for joint in self._joints]
        for person, prediction in zip(batch, found, strict=True):
            self._scored.append(person)
            for kind, points in self._points(prediction).items():
                self._errors.setdefault(kind, []).append(box_errors(points[rows], person, self._columns))

    def collected(self) -> tuple[list[LabelledPerson], dict[str, list[Tensor]]]:
        return self._scored, self._errors

    def merge(self, parts: Sequence[tuple[list[LabelledPerson], dict[str, list[Tensor]]]]) -> None:
        for scored, errors in parts:
            self._scored += scored
            for kind, found in errors.items():
                self._errors.setdefault(kind, []).extend(found)

    def write(self, folder: Path) -> list[str | Table]:
        errors = {kind: torch.stack(parts) for kind, parts in self._errors.items()}
        labelled = ~next(iter(errors.values())).isnan()
        joints: list[dict[str, Any]] = [
            {"joint": joint, "labelled": int(labelled[:, i].sum())}
            | {f"{kind}_pck_{t}": share for kind, found in errors.items() for t, share in pck(found[:, i]).items()}
            for i, joint in enumerate(self._joints)
        ]
        people = [
            {"id": person.id, "picture": person.picture}
            | {f"{kind}_mean_error": float(found[i].nanmean()) for kind, found in errors.items()}
            for i, person in enumerate(self._scored)
        ]
        pictures = len({person.picture for person in self._scored})
        overall = {kind: pck(found.flatten()) for kind, found in errors.items()}
        counts = {"people": len(people), "pictures": pictures, "left_out": self._left_out}
        write_json(folder / "metrics.json", {**self._settings, **counts, "pck": overall, "joints": joints})
        write_table(folder / "joints.csv", joints)
        write_table(folder / "samples.csv", people)
        names = ", ".join(f"PCK@{threshold:g}" for threshold in THRESHOLDS)
        lines = [
            f"{names} from {SOURCES[kind]}: {' / '.join(map(_percent, shares.values()))} %"
            for kind, shares in overall.items()
        ]
        left_out = _listed(self._left_out)
        missing = f"; left out: {left_out}" if left_out else ""
        closing = f"{len(people)} people in {pictures} pictures{missing}; results in {folder}"
        return [*lines, _joint_table(joints), closing]

    def _points(self, person: Prediction) -> dict[str, Float[Tensor, "26 2"]]:
        """The detector's joints in image pixels, by their source (a key of `SOURCES`)."""
        meshes = {"lixel": person.lixel_mesh, "param": person.parametric_mesh}
        found = {
            kind: person.camera.project(self._regressor @ mesh.vertices.float())
            for kind, mesh in meshes.items()
            if mesh is not None
        }
        if person.keypoints is not None and len(person.keypoints) == len(HALPE26):
            found["keypoints"] = person.keypoints[:, :2]
        return found


def _predictor(system: System) -> Predict:
    predictor = MeshPredictor(system.network, system.body, device=system.device)
    return lambda picture, boxes: predictor(picture, boxes=boxes)


def read_people(path: Path, images: Path) -> tuple[tuple[str, ...], list[LabelledPerson], dict[str, int]]:
    """Read the names of the keypoints, the people whose images are in `images`, and the number of people left out.

    Raise FileError for a file of another kind, InputError if no person is left.
    """
    data = CocoFile(path)
    joints = named_joints(data)
    left_out = {"crowds": 0, "without labelled keypoints": 0, f"whose pictures are not in {images}": 0}
    crowd, bare, absent = left_out
    people = []
    for annotation, image in data.people():
        person = _read_person(path, annotation, image, len(joints))
        if annotation.get("iscrowd"):
            left_out[crowd] += 1
        elif not bool((person.keypoints[:, 2] > 0).any()) or min(person.box[2:]) <= 0:
            left_out[bare] += 1
        elif not (images / person.picture).is_file():
            left_out[absent] += 1
        else:
            people.append(person)
    if not people:
        raise InputError(f"{path} has no person to score: {_listed(left_out) or 'the file is empty'}")
    return joints, people, left_out


def _read_person(path: Path, annotation: dict[str, Any], image: dict[str, Any], joints: int) -> LabelledPerson:
    with reading(f"annotation {annotation.get('id')} of {path}", "a labelled person"):
        keypoints = torch.tensor(annotation["keypoints"], dtype=torch.float32)
        box = tuple(float(value) for value in annotation["bbox"])
        picture, number = str(image["file_name"]), int(annotation["id"])
    if keypoints.shape != (3 * joints,) or len(box) != 4:
        raise FileError(
            f"{path}: annotation {number} has {len(keypoints) / 3:g} joints and a box of {len(box)} values, not "
            f"{joints} and 4"
        )
    return LabelledPerson(number, picture, box, keypoints.reshape(-1, 3))


def box_errors(points: Float[Tensor, "n 2"], person: LabelledPerson, columns: Sequence[int]) -> Float[Tensor, "n"]:
    """Distances to the keypoints `columns`, relative to the box's longer side; NaN for keypoints without a label."""
    labels = person.keypoints[list(columns)]
    distance = (points - labels[:, :2]).norm(dim=-1) / max(person.box[2:])
    return distance.masked_fill(labels[:, 2] <= 0, torch.nan)


def pck(errors: Float[Tensor, "n"]) -> dict[str, float | None]:
    """Share of the known errors (not NaN) up to each threshold, by the threshold; None if no error is known."""
    known = errors[~errors.isnan()]
    return {f"{t:g}": float((known <= t).float().mean()) if len(known) else None for t in THRESHOLDS}


def _listed(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _joint_table(rows: Sequence[dict[str, Any]]) -> Table:
    names = [name for name in rows[0] if "_pck_" in name]
    cells = [
        {"joint": row["joint"], "labelled": str(row["labelled"])}
        | {name.replace("_pck_", "\n@"): _percent(row[name]) for name in names}
        for row in rows
    ]
    return text_table("PCK by joint, %", cells)
