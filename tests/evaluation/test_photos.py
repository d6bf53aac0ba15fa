"""COCO keypoints on photos: who is scored, what counts as found, files and one-line errors."""

import csv
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from i2l_lab.synthetic.cameras import FACING
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyMesh
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.evaluation.evaluate import EvaluateOptions
from i2l_meshnet.evaluation.photos import Person, evaluate_photos, read_people, shares_within
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.skeletons import COCO, HALPE26

NAMES = [name.replace("L_", "left_").replace("R_", "right_").lower() for name in COCO.joints[:-1]]
CAMERA = Camera(torch.tensor([500.0, 500.0]), torch.tensor([200.0, 150.0]))


@dataclasses.dataclass(frozen=True)
class StandInPerson:
    lixel_mesh: BodyMesh
    parametric_mesh: BodyMesh | None = None
    keypoints: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class StandInPeople:
    people: list[Person]
    camera: Camera = CAMERA

    def __iter__(self) -> Iterator[Person]:
        return iter(self.people)


@pytest.fixture(scope="module")
def anny() -> AnnyBody:
    body = load_body("anny")
    assert isinstance(body, AnnyBody)
    return body


@pytest.fixture(scope="module")
def mesh(anny: AnnyBody) -> BodyMesh:
    """An upright person 4 m before the camera."""
    params = anny.rest_params()
    pose = params.pose.clone()
    pose[0] = torch.tensor(FACING)
    return anny(dataclasses.replace(params, pose=pose, translation=torch.tensor([0.0, 0.6, 4.0])))


def truth(anny: AnnyBody, mesh: BodyMesh) -> torch.Tensor:
    """Where the body's COCO keypoints are seen (17, 2)."""
    return CAMERA.project(anny.keypoint_regressor @ mesh.vertices)[[HALPE26.index(j) for j in COCO.joints[:-1]]]


def write_coco(folder: Path, points: torch.Tensor, **changes: Any) -> Path:
    """A file with one labelled person, a crowd, one without keypoints, and one whose picture is missing."""
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "1.jpg").write_bytes(b"not looked into here")
    flags = torch.full((17, 1), 2.0)
    flags[COCO.index("Nose")] = 0
    flags[COCO.index("L_Wrist")] = 1
    low, high = points.amin(0), points.amax(0)
    person = {
        "id": 7,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 16,
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "keypoints": torch.cat([points * (flags > 0), flags], 1).flatten().tolist(),
    } | changes
    others = [
        {**person, "id": 8, "iscrowd": 1},
        {**person, "id": 9, "keypoints": [0] * 51, "num_keypoints": 0},
        {**person, "id": 10, "image_id": 2},
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 400, "height": 300} for i in (1, 2)],
        "annotations": [person, *others],
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[16, 14]]}],
    }
    path = folder / "person_keypoints_tiny.json"
    path.write_text(json.dumps(content))
    return path


def test_joints_are_found_within_shares_of_the_box(anny: AnnyBody, mesh: BodyMesh, tmp_path: Path) -> None:
    points = truth(anny, mesh)
    side = float((points.amax(0) - points.amin(0)).max())
    path = write_coco(tmp_path, points)
    content = json.loads(path.read_text())
    # An inner joint, so that the box stays: labelled 0.15 of the box's longer side away from the mesh's.
    content["annotations"][0]["keypoints"][3 * COCO.index("R_Hip")] += 0.15 * side
    path.write_text(json.dumps(content))
    asked: list[Sequence[Sequence[float]]] = []

    def predict(picture: Path, boxes: Sequence[Sequence[float]]) -> StandInPeople:
        assert picture == tmp_path / "images" / "1.jpg"
        asked.append(boxes)
        halved = BodyMesh(mesh.vertices * torch.tensor([0.5, 0.5, 1]), mesh.joints)
        return StandInPeople([StandInPerson(mesh, halved)])

    out = tmp_path / "out"
    found = list(evaluate_photos(anny, predict, path, tmp_path / "images", out, "mine"))
    assert len(asked[0]) == 1
    assert found[0] == "PCK@0.05, PCK@0.1, PCK@0.2 from lixel mesh: 93.8 / 93.8 / 100.0 %"
    assert "left out: 1 crowds, 1 without labelled keypoints, 1 whose pictures are not in" in str(found[-1])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["pck"]["lixel"] == {"0.05": 15 / 16, "0.1": 15 / 16, "0.2": 1.0}
    assert metrics["pck"]["param"]["0.05"] < 0.5
    with (out / "joints.csv").open() as file:
        rows = {row["joint"]: row for row in csv.DictReader(file)}
    assert len(rows) == 17
    assert rows["Nose"]["labelled"] == "0"
    assert rows["Nose"]["lixel_pck_0.1"] == ""
    assert float(rows["R_Hip"]["lixel_pck_0.1"]) == 0
    assert rows["L_Wrist"]["labelled"] == "1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"keypoints": [1, 2, 2]}, "annotation 7 has 1 joints"),
        ({"bbox": None}, "annotation 7 is malformed"),
        ({"image_id": 5}, "annotation 7 belongs to no image"),
        ({"bbox": [0, 0, 0, 5]}, "nobody to score"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    changes: dict[str, Any], expected: str, anny: AnnyBody, mesh: BodyMesh, tmp_path: Path
) -> None:
    path = write_coco(tmp_path, truth(anny, mesh), **changes)
    with pytest.raises(UserError, match=expected):
        read_people(path, tmp_path / "images")


def test_a_file_without_named_keypoints_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}))
    with pytest.raises(FileError, match="must name its `keypoints`"):
        read_people(path, tmp_path)


def test_shares_of_nothing_are_none() -> None:
    assert shares_within(torch.tensor([float("nan")])) == [None, None, None]
    assert shares_within(torch.tensor([0.01, 0.15, float("nan")])) == [0.5, 0.5, 1.0]


def test_the_files_are_asked_for_and_belong_to_this_benchmark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs both"):
        EvaluateOptions("coco-keypoints", annotations=tmp_path)
    with pytest.raises(InputError, match="belong to --data coco-keypoints"):
        EvaluateOptions("PW3D", images=tmp_path)
