"""Datasets are read as the published code reads them, cached, and refused with one clear line if damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2l_meshnet.data import cache
from i2l_meshnet.data.annotation import PersonRow, TableBuilder
from i2l_meshnet.data.sources import ADAPTERS, Source, open_source
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.skeletons import COCO

GOLDEN_SPLITS = [
    ("Human36M", "train"),
    ("Human36M", "test"),
    ("MuCo", "train"),
    ("MSCOCO", "train"),
    ("MSCOCO", "val"),
    ("PW3D", "train"),
    ("PW3D", "test"),
    ("FreiHAND", "train"),
    ("FreiHAND", "eval"),
]
MILLIMETRES = ("Human36M", "MuCo")


def opened(name: str, root: Path, split: str = "train", true_boxes: bool = False) -> Source:
    return open_source(name, root, split, true_boxes)


@pytest.fixture
def root(dataset_root: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data sets that a test may break."""
    shutil.copytree(dataset_root, tmp_path / "data", ignore=shutil.ignore_patterns(".i2l-meshnet"))
    return tmp_path / "data"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("name", "split"), GOLDEN_SPLITS)
def test_rows_are_the_published_ones(name: str, split: str, dataset_root: Path, goldens: Path) -> None:
    """Boxes exactly; joints to float32's rounding (5 m in mm: 5e-4), root depths likewise."""
    source = opened(name, dataset_root, split)
    kind = "train" if split == "train" else "test"
    scale = 1000 if name in MILLIMETRES else 1
    arrays = source.table.arrays
    with np.load(goldens / "datasets" / f"{name}.npz") as archive:
        assert len(source) == archive[f"{kind}_len"]
        for item in range(len(source)):
            facts = {
                key.split("/")[-1]: archive[key] for key in archive.files if key.startswith(f"{kind}_datalist/{item}/")
            }
            assert str(facts["img_path"]) == f"{name}/{source.table.image_path(item)}"
            np.testing.assert_array_equal(arrays["box"][item], facts["bbox"])
            if "joint_img" in facts:
                np.testing.assert_allclose(arrays["joints_image"][item], facts["joint_img"][:, :2], atol=1e-4)
                visible = facts.get("joint_valid", np.ones(1)).ravel() > 0
                np.testing.assert_array_equal(
                    arrays["visible"][item], np.broadcast_to(visible, len(source.table.skeleton))
                )
            if "joint_cam" in facts and split != "eval":
                np.testing.assert_allclose(arrays["joints_camera"][item] * scale, facts["joint_cam"], atol=1e-3)
            if "focal" in facts:
                np.testing.assert_allclose(arrays["focal"][item], facts["focal"], rtol=1e-6)
                np.testing.assert_allclose(arrays["center"][item], facts["princpt"], rtol=1e-6)
            if "root_joint_depth" in facts:
                unit = 1000 if name in ("Human36M", "MSCOCO") else 1
                assert arrays["root_depth"][item] * unit == pytest.approx(float(facts["root_joint_depth"]), abs=1e-3)


def test_what_is_left_out_is_counted(dataset_root: Path) -> None:
    left_out = opened("MSCOCO", dataset_root).table.left_out
    assert left_out == {"crowd": 1, "no keypoints": 1, "box without area inside the image": 1}


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [("Human36M", "test", "human36m"), ("PW3D", "test", "pw3d"), ("FreiHAND", "eval", "freihand")],
)
def test_a_person_without_rootnets_box_is_left_out(name: str, split: str, file: str, root: Path) -> None:
    before = open_source(name, root, split)
    path = before.folder / "rootnet_output" / f"bbox_root_{file}_output.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    after = open_source(name, root, split)
    assert after.table.left_out == {"without RootNet box": 1}
    assert len(after) == len(before) - 1


def test_true_boxes_replace_rootnets(dataset_root: Path) -> None:
    """`use_gt_info`: boxes from the annotations, the root's own depth."""
    rootnet, truth = (opened("Human36M", dataset_root, "test", boxes).table.arrays for boxes in (False, True))
    assert not np.allclose(rootnet["box"], truth["box"])
    np.testing.assert_array_equal(truth["root_depth"], truth["joints_camera"][:, 0, 2])


def test_pictures_of_3dpw_are_found_in_both_places(root: Path) -> None:
    folder = root / "PW3D"
    inside = opened("PW3D", root)
    assert inside.image_path(0).is_file()
    (folder / "data" / "imageFiles").rename(folder / "imageFiles")
    shutil.rmtree(folder / cache.FOLDER)
    assert opened("PW3D", root).image_path(0).is_file()


def test_the_cache_is_mapped_and_renewed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened("MuCo", root)
    path = root / "MuCo" / cache.FOLDER / "MuCo-train.safetensors"

    def fail(path: Path) -> None:
        raise AssertionError(f"{path} was parsed again")

    with monkeypatch.context() as patch:
        patch.setattr("i2l_meshnet.data.sources.muco.read_json", fail)
        second = opened("MuCo", root)
    assert isinstance(second.table.arrays["box"], np.memmap)
    for name, values in first.table.arrays.items():
        np.testing.assert_array_equal(values, second.table.arrays[name])
    assert second.table.skeleton == first.table.skeleton
    path.write_bytes(path.read_bytes()[:1000])
    assert len(opened("MuCo", root)) == 5
    edit(root / "MuCo" / "data" / "MuCo-3DHP.json", lambda content: content["images"].pop())
    assert len(opened("MuCo", root)) == 4


def test_the_users_cache_is_used_for_a_read_only_dataset(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "MuCo" / cache.FOLDER).write_text("not a folder")
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(root / "MuCo" / cache.FOLDER))
    assert len(opened("MuCo", root)) == 5  # Without any cache.
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))
    assert len(opened("MuCo", root)) == 5
    assert [path.suffix for path in (tmp_path / "cache" / "annotations").iterdir()] == [".safetensors"]


def set_at(*path: Any, value: Any) -> Callable[[Any], None]:
    """Set a value of a JSON file."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def remove_at(*path: Any) -> Callable[[Any], None]:
    """Remove a value of a JSON file."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def flatten_boxes(content: Any) -> None:
    for annotation in content["annotations"]:
        annotation["bbox"][3] = 0


MUCO_FILE, HUMAN36M_FILE = "data/MuCo-3DHP.json", "annotations/Human36M_subject5_joint_3d.json"
COCO_FILE = "annotations/person_keypoints_train2017.json"


@pytest.mark.parametrize(
    ("name", "file", "change", "words"),
    [
        (
            "MuCo",
            "data/MuCo-3DHP.json",
            set_at("annotations", 0, "keypoints_cam", 3, 1, value=float("nan")),
            "annotation 100",
        ),
        ("MuCo", MUCO_FILE, remove_at("annotations", 0, "keypoints_cam", 3), "annotation 100"),
        ("MuCo", MUCO_FILE, set_at("annotations", 0, "keypoints_cam", value=[]), "annotation 100"),
        ("MuCo", MUCO_FILE, flatten_boxes, "5 box without area"),
        ("MuCo", MUCO_FILE, remove_at("annotations", 0, "bbox"), "'bbox'"),
        ("MuCo", "data/smpl_param.json", remove_at("100", "pose", 0), "annotation 100"),
        ("MuCo", MUCO_FILE, lambda content: content.clear(), "MuCo-3DHP.json"),
        ("MSCOCO", COCO_FILE, remove_at("annotations", 0, "keypoints", slice(-3, None)), "5000"),
        ("MSCOCO", COCO_FILE, set_at("annotations", 0, "image_id", value=123456), "5000"),
        ("Human36M", HUMAN36M_FILE, remove_at("3", "2", "10", 0), "annotation"),
        ("PW3D", "rootnet_output/bbox_root_pw3d_output.json", set_at(0, "bbox", 2, value=0), "annotation 0"),
    ],
)
def test_bad_annotations_are_named_in_one_line(
    name: str, file: str, change: Callable[[Any], None], words: str, root: Path
) -> None:
    edit(root / name / file, change)
    with pytest.raises(FileError) as caught:
        opened(name, root, "test" if name == "PW3D" else "train")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_splits_are_named(root: Path) -> None:
    path = root / "MuCo" / "data" / "MuCo-3DHP.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"MuCo-3DHP\.json"):
        opened("MuCo", root)
    path.unlink()
    with pytest.raises(FileError, match=r"MuCo-3DHP\.json is missing: get it from https://"):
        opened("MuCo", root)
    with pytest.raises(FileError, match="nowhere"):
        opened("MuCo", root / "nowhere")
    with pytest.raises(InputError, match="'test'"):
        opened("MuCo", root, "test")


def test_every_missing_file_has_an_address_of_the_documentation() -> None:
    """docs/migration.md lists the addresses of the published data."""
    listed = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
    for name in ("Human36M", "MuCo", "MSCOCO", "PW3D", "FreiHAND"):
        adapter = ADAPTERS[name]
        for needed in (needed for split in adapter.splits for needed in adapter.needs(split, False)):
            assert needed.origin.split()[0].rstrip(",") in listed, (name, needed)


def write_custom(root: Path, **extra: Any) -> Path:
    """A custom dataset: one image with one person of five keypoints."""
    folder = root / "Custom"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100, **extra.pop("image", {})}],
        "categories": [
            {"keypoints": ["nose", "left_hip", "right_hip", "left_knee", "right_knee"], "skeleton": [[2, 4], [3, 5]]}
        ],
        "annotations": [
            {
                "id": 7,
                "image_id": 1,
                "bbox": [50, 10, 60, 80],
                "keypoints": [80, 20, 2, 90, 50, 2, 70, 50, 1, 90, 80, 2, 0, 0, 0],
                **extra,
            }
        ],
    }
    path = folder / "annotations" / "train.json"
    path.write_text(json.dumps(content))
    return path


def test_a_custom_dataset(tmp_path: Path) -> None:
    write_custom(tmp_path)
    source = opened("Custom", tmp_path)
    assert source.table.skeleton.joints == ("Nose", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "Pelvis")
    assert source.table.skeleton.bones == (("L_Hip", "L_Knee"), ("R_Hip", "R_Knee"))
    assert source.table.skeleton.root == "Pelvis"
    annotation = source.table.annotations([0])[0]
    assert annotation.visible.tolist() == [True, True, True, True, False, True]
    assert annotation.joints_image[5].tolist() == [80, 50]
    assert annotation.camera.focal.tolist() == [1500, 1500]
    assert not bool(annotation.has_depth)


def test_a_custom_dataset_in_3d(tmp_path: Path) -> None:
    joints = [[0, -0.5, 3], [0.1, 0, 3], [-0.1, 0, 3.2], [0.1, 0.4, 3], [-0.1, 0.4, 3]]
    camera = {"focal": [900, 910], "princpt": [99, 51]}
    fit = {"pose": [0.0] * 72, "shape": [0.0] * 10, "trans": [0, 0, 3], "gender": "female"}
    write_custom(tmp_path, keypoints_cam=joints, smpl_param=fit, image={"cam_param": camera})
    annotation = opened("Custom", tmp_path).table.annotations([0])[0]
    assert bool(annotation.has_depth)
    np.testing.assert_allclose(annotation.joints_camera[5], [0, 0, 3.1], atol=1e-6)
    assert float(annotation.root_depth) == pytest.approx(3.1)
    assert annotation.camera.focal.tolist() == [900, 910]
    assert int(annotation.fit.body) == 2
    assert bool(annotation.fit.known)


def test_mistakes_in_a_custom_dataset_are_named(tmp_path: Path) -> None:
    path = write_custom(tmp_path)
    edit(path, lambda content: content["annotations"][0]["keypoints"].extend([1, 2, 2]))
    with pytest.raises(FileError, match="annotation 7"):
        opened("Custom", tmp_path)
    edit(path, lambda content: content.pop("categories"))
    with pytest.raises(FileError, match="categor"):
        opened("Custom", tmp_path)


def test_a_dataset_without_fits_names_no_bodies(tmp_path: Path) -> None:
    rows = TableBuilder(COCO)
    rows.add(PersonRow("people.json", 1, "a.jpg", (200, 100), (50, 10, 60, 80), (900, 900), (100, 50)))
    annotation = rows.build(tmp_path).annotations([0])[0]
    assert not bool(annotation.fit.known)
    assert annotation.fit.pose.shape == (0, 3)
