import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh
from stand_in import Scene, TruthNetwork

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.errors import TakenError
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.overlay import COLORS
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import PicturePrediction, SaveOptions, ShownMesh


@pytest.fixture
def three(predictor: MeshPredictor, scenes: list[Scene]) -> PicturePrediction:
    intrinsics = Intrinsics(matrix=(860.0, 860.0, 449.5, 349.5))
    return predictor(scenes[0].pixels, boxes=scenes[0].boxes, intrinsics=intrinsics, name="photo")


def test_the_files_of_an_image(three: PicturePrediction, tmp_path: Path) -> None:
    paths = three.save(tmp_path / "new")
    meshes = [
        f"photo_{i}_{kind}.{form}" for i in range(3) for kind in ("lixel", "param") for form in ("obj", "ply", "glb")
    ]
    expected = {
        *meshes,
        *(f"photo_{what}.jpg" for what in ("overlay", "joints", "side", "top")),
        "photo.npz",
        "photo.json",
    }
    assert {path.name for path in paths} == expected
    assert {path.name for path in (tmp_path / "new").iterdir()} == expected
    overlay = cv2.imread(str(tmp_path / "new" / "photo_overlay.jpg"))
    assert overlay is not None
    assert overlay.shape == (700, 900, 3)
    three.save(tmp_path / "few", SaveOptions(formats=("glb",), meshes=("param",), pictures=False))
    names = {path.name for path in (tmp_path / "few").iterdir()}
    assert names == {*(f"photo_{i}_param.glb" for i in range(3)), "photo.npz", "photo.json"}


def test_the_arrays_agree_with_each_other(three: PicturePrediction, anny: Body, scenes: list[Scene]) -> None:
    arrays = three.arrays()
    n, (j, v), k, s = 3, anny.joint_regressor.shape, len(anny.bones), len(anny.shape_names)
    shapes = {
        "box": (n, 4), "lixels": (n, v, 3), "param_vertices": (n, v, 3), "lixel_joints": (n, j, 3), "intrinsics": (4,),
        "pose_matrix": (n, k, 3, 3), "pose_axis_angle": (n, k, 3), "shape": (n, s), "reprojection_error": (n, 2),
        "keypoints": (n, 26, 3), "joint_names": (j,), "bone_names": (k,), "crop_affine": (n, 2, 3),
    }  # fmt: skip
    assert {key: arrays[key].shape for key in shapes} == shapes
    assert arrays["image_size"].tolist() == [900, 700]
    params = BodyParams(*(torch.from_numpy(arrays[key]) for key in ("pose_matrix", "shape", "translation")))
    np.testing.assert_allclose(anny(params).vertices.numpy(), arrays["param_vertices"], atol=1e-5)
    rotations = axis_angle_to_matrix(torch.from_numpy(arrays["pose_axis_angle"])).numpy()
    np.testing.assert_allclose(rotations, arrays["pose_matrix"], atol=1e-5)
    regressed = anny.joint_regressor.numpy() @ arrays["lixel_vertices"]
    np.testing.assert_allclose(regressed, arrays["lixel_joints"], atol=1e-5)
    truth = np.stack([person.mesh.vertices.numpy() for person in scenes[0].people])
    np.testing.assert_allclose(arrays["lixel_vertices"], truth, atol=1e-3)
    fx, fy, cx, cy = arrays["intrinsics"]
    flat = arrays["lixel_joints"][..., :2] / arrays["lixel_joints"][..., 2:] * [fx, fy] + [cx, cy]
    np.testing.assert_allclose(flat, arrays["joints_image"], atol=1.0)
    assert set(json.loads(str(arrays["versions"]))) >= {"i2l-meshnet", "torch"}
    assert json.loads(str(arrays["units"]))["lengths"] == "metres"


def test_the_record_agrees_with_the_arrays(three: PicturePrediction, tmp_path: Path) -> None:
    three.save(tmp_path)
    record: dict[str, Any] = json.loads((tmp_path / "photo.json").read_text())
    with np.load(tmp_path / "photo.npz", allow_pickle=False) as arrays:
        for number, person in enumerate(record["people"]):
            for key, value in person.items():
                if key in arrays and key != "reprojection_error":
                    np.testing.assert_allclose(value, arrays[key][number], atol=2e-3 if key == "keypoints" else 1e-4)
    files = [name for person in record["people"] for kind in person["files"].values() for name in kind.values()]
    assert {*files, *record["files"].values(), "photo.json"} == {path.name for path in tmp_path.iterdir()}


def test_the_record_tells_median_and_mean_apart(three: PicturePrediction) -> None:
    people = tuple(dataclasses.replace(person, reprojection_error=(1.5, 2.5)) for person in three)
    record = dataclasses.replace(three, people=people).record()
    assert record["people"][0]["reprojection_error"] == {"median": 1.5, "mean": 2.5}


def test_a_network_without_parameters_writes_only_its_own_mesh(
    network: TruthNetwork, anny: Body, scenes: list[Scene], tmp_path: Path
) -> None:
    network.with_params = network.with_keypoints = False
    MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes[:1], name="x").save(tmp_path)
    assert not list(tmp_path.glob("*param*"))
    parametric = {"param_vertices", "param_joints", "pose_matrix", "pose_axis_angle", "shape", "translation"}
    with np.load(tmp_path / "x.npz") as arrays:
        assert not {*parametric, "reprojection_error", "keypoints"} & set(arrays)
    person = json.loads((tmp_path / "x.json").read_text())["people"][0]
    assert person["reprojection_error"] is None
    assert not parametric & set(person)


def test_a_picture_without_people(predictor: MeshPredictor, scenes: list[Scene], tmp_path: Path) -> None:
    nobody = predictor(scenes[0].pixels, boxes=[], name="empty")
    assert len(nobody) == 0
    assert {path.name for path in nobody.save(tmp_path)} == {"empty.npz", "empty.json"}
    with np.load(tmp_path / "empty.npz") as arrays:
        assert arrays["lixel_vertices"].shape == (0, 1229, 3)
        assert arrays["pose_matrix"].shape[0] == 0
    assert json.loads((tmp_path / "empty.json").read_text())["people"] == []


def test_existing_results_are_replaced_only_with_overwrite(
    three: PicturePrediction, predictor: MeshPredictor, scenes: list[Scene], tmp_path: Path
) -> None:
    mine = tmp_path / "photo_side.jpg"
    mine.write_text("mine")
    with pytest.raises(TakenError):
        three.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo_side.jpg"]
    three.save(tmp_path, SaveOptions(overwrite=True))
    assert mine.read_bytes()[:2] == b"\xff\xd8"
    with pytest.raises(TakenError):
        three.save(tmp_path)
    # Fewer people than before: files of the earlier run are removed, other files are not.
    (tmp_path / "photo_2_other.obj").write_text("mine")
    predictor(scenes[0].pixels, boxes=scenes[0].boxes[:1], name="photo").save(tmp_path, SaveOptions(overwrite=True))
    names = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in names if name.startswith(("photo_1", "photo_2_lixel", "photo_2_param"))]
    assert "photo_2_other.obj" in names


def test_a_forged_record_does_not_remove_other_files(three: PicturePrediction, tmp_path: Path) -> None:
    victim = tmp_path / "photo" / "photo_precious.txt"
    victim.parent.mkdir()
    victim.write_text("mine")
    forged = {"files": {"a": "photo/photo_precious.txt", "b": "../x", "c": 3}, "people": []}
    (tmp_path / "photo.json").write_text(json.dumps(forged))
    three.save(tmp_path, SaveOptions(overwrite=True))
    assert victim.read_text() == "mine"


def test_drawings_are_at_most_max_side_large(three: PicturePrediction, tmp_path: Path) -> None:
    three.save(tmp_path, SaveOptions(formats=(), max_side=450))
    small = cv2.imread(str(tmp_path / "photo_overlay.jpg"))
    assert small is not None
    assert small.shape == (350, 450, 3)


def test_both_meshes_are_drawn_in_one_run(three: PicturePrediction, tmp_path: Path) -> None:
    def drawn(shown: ShownMesh, picture: PicturePrediction = three) -> dict[str, bytes]:
        folder = tmp_path / f"{shown}_{id(picture)}"
        picture.save(folder, SaveOptions(formats=(), shown=shown))
        return {path.stem.removeprefix("photo_"): path.read_bytes() for path in folder.glob("*.jpg")}

    lixel, param, both = drawn("lixel"), drawn("param"), drawn("both")
    assert lixel["overlay"] != param["overlay"]
    assert both == {**param, "overlay_lixel": lixel["overlay"]}
    only_lixel = dataclasses.replace(
        three, people=tuple(dataclasses.replace(person, params=None, parametric_mesh=None) for person in three)
    )
    assert drawn("both", only_lixel) == lixel


def test_one_mesh_of_a_person(three: PicturePrediction, tmp_path: Path) -> None:
    for kind in ("lixel", "param"):
        mesh = trimesh.load(three[1].save(tmp_path / f"{kind}.ply", kind))
        assert isinstance(mesh, trimesh.Trimesh)
        np.testing.assert_allclose(mesh.vertices.mean(0), three[1].surface(kind).vertices.mean(0), atol=1e-3)
    assert len(three[:2]) == 2


def test_doubtful_people_are_drawn_only_if_there_are_no_others(
    three: PicturePrediction, network: TruthNetwork, tmp_path: Path
) -> None:
    def drawn(*reliable: bool) -> Any:
        people = tuple(dataclasses.replace(person, reliable=good) for person, good in zip(three, reliable, strict=True))
        folder = tmp_path / "".join(map(str, reliable))
        dataclasses.replace(three, people=people).save(folder, SaveOptions(formats=()))
        return cv2.imread(str(folder / "photo_overlay.jpg")).astype(int)  # pyright: ignore

    everyone, nobody, two = drawn(True, True, True), drawn(False, False, False), drawn(False, True, True)
    np.testing.assert_array_equal(everyone, nobody)
    x, y, w, h = (round(value) for value in three[0].box.tolist())
    first = np.zeros(everyone.shape[:2], bool)
    first[y - 16 : y + h + 16, x - 16 : x + w + 16] = True  # JPEG blocks reach beyond the mesh
    changed = np.abs(everyone - two).max(-1) > 20
    side = cv2.imread(str(tmp_path / "FalseTrueTrue" / "photo_side.jpg"))[..., ::-1].astype(float)  # pyright: ignore
    colored = side[np.ptp(side, axis=-1) > 60]
    hues = COLORS[:3] / np.linalg.norm(COLORS[:3], axis=1, keepdims=True)
    who = np.bincount((colored @ hues.T).argmax(1), minlength=3) / len(colored)
    assert who[0] < 0.02 < who[1:].min()  # everybody keeps their colour
    assert (changed & first).sum() > 2000
    assert not (changed & ~first).any()
