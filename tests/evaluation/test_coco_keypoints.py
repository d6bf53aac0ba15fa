"""COCO keypoints on photos: scored people, PCK, files and errors."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from known_network import KnownNetwork

from i2l_lab.synthetic.cameras import FACING
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyMesh
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.evaluation.benchmark import System, evaluate
from i2l_meshnet.evaluation.coco_keypoints import CocoKeypoints, pck, read_people
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.skeletons import COCO, HALPE26

NAMES = [name.replace("L_", "left_").replace("R_", "right_").lower() for name in COCO.joints[:-1]]
CAMERA = Camera(torch.tensor([500.0, 500.0]), torch.tensor([200.0, 150.0]))


def person(anny: AnnyBody, mesh: BodyMesh, parametric: BodyMesh) -> Prediction:
    return Prediction(
        body=anny,
        box=torch.zeros(4),
        score=1.0,
        camera=CAMERA,
        crop=Crop.around(torch.tensor([0.0, 0, 100, 100]), (256, 256)),
        lixels=mesh.vertices,
        joints_image=torch.zeros(1, 2),
        lixel_mesh=mesh,
        root_depth=4.0,
        root_depth_source="given",
        parametric_mesh=parametric,
    )


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
    """Write a file with a labelled person, a crowd, a person without keypoints, and a person whose image is missing."""
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "1.jpg").write_bytes(b"not read")
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


def test_pck_is_relative_to_the_box(anny: AnnyBody, mesh: BodyMesh, tmp_path: Path) -> None:
    points = truth(anny, mesh)
    side = float((points.amax(0) - points.amin(0)).max())
    path = write_coco(tmp_path, points)
    content = json.loads(path.read_text())
    # An inner joint does not change the box. Its label is 0.15 of the box's longer side away from the mesh.
    content["annotations"][0]["keypoints"][3 * COCO.index("R_Hip")] += 0.15 * side
    path.write_text(json.dumps(content))
    asked: list[Sequence[Sequence[float]]] = []

    def predict(picture: Path, boxes: Sequence[Sequence[float]]) -> list[Prediction]:
        assert picture == tmp_path / "images" / "1.jpg"
        asked.append(boxes)
        return [person(anny, mesh, BodyMesh(mesh.vertices * torch.tensor([0.5, 0.5, 1]), mesh.joints))]

    out, system = tmp_path / "out", System(KnownNetwork(torch.zeros(1), LixelGrid()), anny, torch.device("cpu"), "mine")
    benchmark = CocoKeypoints(system, path, tmp_path / "images", predict=predict)
    evaluate(benchmark)
    found = benchmark.write(out)
    assert len(asked[0]) == 1
    assert found[0] == "PCK@0.05, PCK@0.1, PCK@0.2 from lixel mesh: 93.8 / 93.8 / 100.0 %"
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["left_out"].values()) == [1, 1, 1]
    assert metrics["pck"]["lixel"] == {"0.05": 15 / 16, "0.1": 15 / 16, "0.2": 1.0}
    assert metrics["pck"]["param"]["0.05"] < 0.5
    rows = {row["joint"]: row for row in csv.DictReader((out / "joints.csv").read_text().splitlines())}
    assert len(rows) == 17
    assert rows["Nose"]["labelled"] == "0"
    assert rows["Nose"]["lixel_pck_0.1"] == ""
    assert float(rows["R_Hip"]["lixel_pck_0.1"]) == 0
    assert rows["L_Wrist"]["labelled"] == "1"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"keypoints": [1, 2, 2]}, FileError),
        ({"bbox": None}, FileError),
        ({"image_id": 5}, FileError),
        ({"bbox": [0, 0, 0, 5]}, InputError),  # nobody to score
    ],
)
def test_a_malformed_annotation_is_refused(
    changes: dict[str, Any], error: type[UserError], anny: AnnyBody, mesh: BodyMesh, tmp_path: Path
) -> None:
    path = write_coco(tmp_path, truth(anny, mesh), **changes)
    with pytest.raises(error):
        read_people(path, tmp_path / "images")


def test_pck_without_labels_is_none() -> None:
    assert list(pck(torch.tensor([float("nan")])).values()) == [None, None, None]
    assert pck(torch.tensor([0.01, 0.15, float("nan")])) == {"0.05": 0.5, "0.1": 0.5, "0.2": 1.0}
