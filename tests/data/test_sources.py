"""Data sets are read as the published code reads them, cached, and refused with one clear line when broken."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2l_meshnet.data import cache
from i2l_meshnet.data.sources import Source, open_source
from i2l_meshnet.errors import FileError, InputError

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
    assert left_out == {"crowd": 1, "no keypoints": 1, "box of no area inside the picture": 1}


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


def test_the_cache_is_used_and_mapped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened("MuCo", root)
    assert (root / "MuCo" / cache.FOLDER / "MuCo-train.safetensors").is_file()

    def fail(path: Path) -> None:
        raise AssertionError(f"{path} was parsed again")

    monkeypatch.setattr("i2l_meshnet.data.sources.muco.read_json", fail)
    second = opened("MuCo", root)
    assert isinstance(second.table.arrays["box"], np.memmap)
    for name, values in first.table.arrays.items():
        np.testing.assert_array_equal(values, second.table.arrays[name])
    assert second.table.skeleton == first.table.skeleton


def test_a_changed_file_renews_the_cache(root: Path) -> None:
    path = root / "MuCo" / "data" / "MuCo-3DHP.json"
    assert len(opened("MuCo", root)) == 5
    edit(path, lambda content: content["images"].pop())
    assert len(opened("MuCo", root)) == 4


def test_a_damaged_cache_is_made_anew(root: Path) -> None:
    opened("MuCo", root)
    path = root / "MuCo" / cache.FOLDER / "MuCo-train.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert len(opened("MuCo", root)) == 5


def test_beside_data_that_cannot_be_written_the_users_cache_serves(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "MuCo" / cache.FOLDER).write_text("not a folder")
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))
    assert len(opened("MuCo", root)) == 5
    assert [path.suffix for path in (tmp_path / "cache" / "annotations").iterdir()] == [".safetensors"]


def nan_joint(content: Any) -> None:
    content["annotations"][0]["keypoints_cam"][3][1] = float("nan")


def too_few_joints(content: Any) -> None:
    content["annotations"][0]["keypoints_cam"].pop()


def too_few_keypoints(content: Any) -> None:
    del content["annotations"][0]["keypoints"][-3:]


def too_few_world_joints(content: Any) -> None:
    content["3"]["2"]["10"].pop()


def flat_box(content: Any) -> None:
    content[0]["bbox"][2] = 0


def no_boxes(content: Any) -> None:
    for annotation in content["annotations"]:
        annotation["bbox"][3] = 0


def lost_key(content: Any) -> None:
    del content["annotations"][0]["bbox"]


def lost_image(content: Any) -> None:
    content["annotations"][0]["image_id"] = 123456


def short_pose(content: Any) -> None:
    content["100"]["pose"].pop()


def no_lists(content: Any) -> None:
    content.clear()


@pytest.mark.parametrize(
    ("name", "file", "change", "words"),
    [
        ("MuCo", "data/MuCo-3DHP.json", nan_joint, "annotation 100: joints_camera holds NaN"),
        (
            "MuCo",
            "data/MuCo-3DHP.json",
            too_few_joints,
            "annotation 100: joints: there are 20 by 3 values, not 21 by 3",
        ),
        ("MuCo", "data/MuCo-3DHP.json", no_boxes, "no usable annotation (5 box of no area"),
        ("MuCo", "data/MuCo-3DHP.json", lost_key, "'bbox'"),
        ("MuCo", "data/smpl_param.json", short_pose, "annotation 100: pose: there are 71 values, not 72"),
        ("MuCo", "data/MuCo-3DHP.json", no_lists, "not in MS-COCO's structure"),
        ("MSCOCO", "annotations/person_keypoints_train2017.json", too_few_keypoints, "5000 has 16 joints, not 17"),
        ("MSCOCO", "annotations/person_keypoints_train2017.json", lost_image, "5000 belongs to no image"),
        ("Human36M", "annotations/Human36M_subject5_joint_3d.json", too_few_world_joints, "there are 16 by 2 values"),
        ("PW3D", "rootnet_output/bbox_root_pw3d_output.json", flat_box, "annotation 0: the box has no area"),
    ],
)
def test_bad_annotations_give_one_clear_line(
    name: str, file: str, change: Callable[[Any], None], words: str, root: Path
) -> None:
    edit(root / name / file, change)
    with pytest.raises(FileError) as caught:
        opened(name, root, "test" if name == "PW3D" else "train")
    message = str(caught.value)
    assert words in message
    assert "\n" not in message


def test_missing_and_cut_files_are_named(root: Path) -> None:
    path = root / "MuCo" / "data" / "MuCo-3DHP.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"MuCo-3DHP\.json .*download or make it again"):
        opened("MuCo", root)
    path.unlink()
    with pytest.raises(FileError, match=r"MuCo-3DHP\.json is missing: get it from"):
        opened("MuCo", root)
    with pytest.raises(FileError, match="the root must be the folder that holds MuCo"):
        opened("MuCo", root / "nowhere")
    with pytest.raises(InputError, match="has the splits train, not 'test'"):
        opened("MuCo", root, "test")


def custom(root: Path, **extra: Any) -> Path:
    """A data set of one's own: one picture, one person with five keypoints."""
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


def test_ones_own_data_set(tmp_path: Path) -> None:
    custom(tmp_path)
    source = opened("Custom", tmp_path)
    assert source.table.skeleton.joints == ("Nose", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "Pelvis")
    assert source.table.skeleton.bones == (("L_Hip", "L_Knee"), ("R_Hip", "R_Knee"))
    assert source.table.skeleton.root == "Pelvis"
    annotation = source.table.annotations([0])[0]
    assert annotation.visible.tolist() == [True, True, True, True, False, True]
    assert annotation.joints_image[5].tolist() == [80, 50]
    assert annotation.camera.focal.tolist() == [1500, 1500]
    assert not bool(annotation.has_depth)


def test_ones_own_data_set_in_3d(tmp_path: Path) -> None:
    joints = [[0, -0.5, 3], [0.1, 0, 3], [-0.1, 0, 3.2], [0.1, 0.4, 3], [-0.1, 0.4, 3]]
    camera = {"focal": [900, 910], "princpt": [99, 51]}
    fit = {"pose": [0.0] * 72, "shape": [0.0] * 10, "trans": [0, 0, 3], "gender": "female"}
    custom(tmp_path, keypoints_cam=joints, smpl_param=fit, image={"cam_param": camera})
    annotation = opened("Custom", tmp_path).table.annotations([0])[0]
    assert bool(annotation.has_depth)
    np.testing.assert_allclose(annotation.joints_camera[5], [0, 0, 3.1], atol=1e-6)
    assert float(annotation.root_depth) == pytest.approx(3.1)
    assert annotation.camera.focal.tolist() == [900, 910]
    assert int(annotation.fit.body) == 2
    assert bool(annotation.fit.known)


def test_ones_own_mistakes_are_named(tmp_path: Path) -> None:
    path = custom(tmp_path)
    edit(path, lambda content: content["annotations"][0]["keypoints"].extend([1, 2, 2]))
    with pytest.raises(FileError, match="annotation 7 has 6 joints, not 5"):
        opened("Custom", tmp_path)
    edit(path, lambda content: content.pop("categories"))
    with pytest.raises(FileError, match="exactly one category must name its `keypoints`"):
        opened("Custom", tmp_path)


def test_reading_does_not_need_write_permission_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither place can be written: the table stays in memory."""
    (root / "MuCo" / cache.FOLDER).write_text("not a folder")
    monkeypatch.setenv("I2L_MESHNET_CACHE", os.fspath(root / "MuCo" / cache.FOLDER))
    assert len(opened("MuCo", root)) == 5
