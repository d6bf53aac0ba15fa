"""MS-COCO: 17 keypoints and the pelvis between the hips, no depth; SMPLify-X fits in the camera frame."""

from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, PersonRow, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import Adapter, CocoFile, Needed, from_rootnet, smpl_fit
from i2l_meshnet.skeletons import COCO

KEYPOINTS = len(COCO) - 1
HIPS = (COCO.index("L_Hip"), COCO.index("R_Hip"))
FITS = "annotations/coco_smplifyx_train.json"
BOXES = "rootnet_output/bbox_root_coco_output.json"
ROOTNET = from_rootnet("https://drive.google.com/file/d/1wEliu1l6YrXLYzwUIQUM8IYpevAFAeYf/view")
FOCAL = 1500.0
"""Focal length (px) of images without a known one, as in the published demo and fits."""


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    release = "https://cocodataset.org (2017 keypoint annotations and images)"
    needed = [Needed(f"annotations/person_keypoints_{split}2017.json", release)]
    if split == "train":
        needed.append(
            Needed(FITS, "https://drive.google.com/drive/folders/1zLrbBaZzxsMx6QtDXqHm4JEuKNOez5dm (SMPL fits of COCO)")
        )
    else:
        needed.append(Needed(BOXES, ROOTNET))
    return [*needed, Needed(f"images/{split}2017", release, parsed=False)]


def assumed_camera(image: dict[str, Any]) -> dict[str, Any]:
    """Add the assumed camera to an image without one."""
    camera = {"focal": (FOCAL, FOCAL), "princpt": (image["width"] / 2, image["height"] / 2)}
    return {**image, "cam_param": camera | image.get("cam_param", {})}


def with_pelvis(keypoints: np.ndarray, left: int, right: int) -> np.ndarray:
    """Append the pelvis to keypoints (n, 3: x, y, flag): the mean of rows `left` and `right`, labelled if both are."""
    joints = np.empty((len(keypoints) + 1, 3), keypoints.dtype)
    joints[:-1] = keypoints
    joints[-1] = (keypoints[left] + keypoints[right]) / 2
    joints[-1, 2] = min(keypoints[left, 2], keypoints[right, 2])
    return joints


def reshaped_keypoints(values: Any, count: int) -> np.ndarray:
    """Keypoints (count, 3) from a flat list. Raises ValueError for another number of keypoints."""
    flat = np.asarray(values, np.float32)
    if flat.size != count * 3:
        raise ValueError(f"it has {flat.size / 3:g} joints, not {count}")
    return flat.reshape(count, 3)


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    data = CocoFile(folder / "annotations" / f"person_keypoints_{split}2017.json")
    rows = TableBuilder(COCO, ("smpl",), bones=24, shapes=10)
    if split == "val":
        for entry in read_json(folder / BOXES):
            image = data.images.get(entry["image_id"])
            if image is None:
                rows.leave_out("RootNet box of an unknown picture")
                continue
            facts = data.facts({**entry, "id": entry["image_id"]}, assumed_camera(image))
            facts |= {"where": str(folder / BOXES), "root_depth": entry["root_cam"][2] / 1000}
            rows.add(PersonRow(**facts, path=f"images/val2017/{image['file_name']}", prepared=True))
        return rows.build(data.path)
    fits = read_json(folder / FITS)

    def person(annotation: dict[str, Any], image: dict[str, Any]) -> PersonRow | str:
        if annotation["iscrowd"] or not annotation["num_keypoints"]:
            return "crowd" if annotation["iscrowd"] else "no keypoints"
        joints = with_pelvis(reshaped_keypoints(annotation["keypoints"], KEYPOINTS), *HIPS)
        fitted = fits.get(str(annotation["id"]))
        return PersonRow(
            **data.facts(annotation, assumed_camera({**image, **(fitted or {})})),
            path=f"images/train2017/{image['file_name']}",
            joints_image=joints[:, :2],
            visible=joints[:, 2],
            fit=smpl_fit(fitted["smpl_param"]) if fitted else None,
        )

    data.add_people(rows, person)
    return rows.build(data.path)


ADAPTER = Adapter(
    "MSCOCO",
    ("train", "val"),
    _needs,
    _read,
    three_d=False,
    joint_regressor="MSCOCO/J_regressor_coco_hip_smpl.npy",
)
