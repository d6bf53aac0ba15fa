"""MS-COCO: 17 keypoints and the pelvis between the hips, no depth; SMPLify-X fits in the camera frame."""

from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import ROOTNET, Adapter, CocoFile, Needed, smpl_fit
from i2l_meshnet.errors import FileError
from i2l_meshnet.skeletons import COCO

KEYPOINTS = len(COCO) - 1
HIPS = (COCO.index("L_Hip"), COCO.index("R_Hip"))
FITS = "annotations/coco_smplifyx_train.json"
BOXES = "rootnet_output/bbox_root_coco_output.json"
FOCAL = 1500.0
"""Focal length (px) assumed where none is known, as in the published demo and fits."""


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    official = "cocodataset.org: 2017 keypoint annotations and pictures"
    needed = [Needed(f"annotations/person_keypoints_{split}2017.json", official)]
    if split == "train":
        needed.append(Needed(FITS, "the SMPLify-X fits linked from the published README"))
    else:
        needed.append(Needed(BOXES, ROOTNET))
    return [*needed, Needed(f"images/{split}2017", official, parsed=False)]


def assumed_camera(image: dict[str, Any]) -> dict[str, Any]:
    """An image with a camera, where it has none of its own."""
    camera = {"focal": (FOCAL, FOCAL), "princpt": (image["width"] / 2, image["height"] / 2)}
    return {**image, "cam_param": camera | image.get("cam_param", {})}


def with_pelvis(keypoints: np.ndarray, left: int, right: int) -> np.ndarray:
    """Appends the pelvis to keypoints (n, 3: x, y, flag): the mean of rows `left` and `right`, labelled if both are."""
    joints = np.empty((len(keypoints) + 1, 3), keypoints.dtype)
    joints[:-1] = keypoints
    joints[-1] = (keypoints[left] + keypoints[right]) / 2
    joints[-1, 2] = min(keypoints[left, 2], keypoints[right, 2])
    return joints


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
            facts["where"] = str(folder / BOXES)
            rows.add(
                **facts,
                path=f"images/val2017/{image['file_name']}",
                prepared=True,
                root_depth=entry["root_cam"][2] / 1000,
            )
        return rows.build(data.path)
    fits = read_json(folder / FITS)
    for annotation, image in data.people():
        if annotation["iscrowd"] or not annotation["num_keypoints"]:
            rows.leave_out("crowd" if annotation["iscrowd"] else "no keypoints")
            continue
        keypoints = np.asarray(annotation["keypoints"], np.float32)
        if keypoints.size != KEYPOINTS * 3:
            raise FileError(
                f"{data.path}: annotation {annotation['id']} has {keypoints.size / 3:g} joints, not {KEYPOINTS}"
            )
        joints = with_pelvis(keypoints.reshape(KEYPOINTS, 3), *HIPS)
        fitted = fits.get(str(annotation["id"]))
        rows.add(
            **data.facts(annotation, assumed_camera({**image, **(fitted or {})})),
            path=f"images/train2017/{image['file_name']}",
            joints_image=joints[:, :2],
            visible=joints[:, 2],
            fit=smpl_fit(fitted["smpl_param"]) if fitted else None,
        )
    return rows.build(data.path)


ADAPTER = Adapter(
    "MSCOCO",
    ("train", "val"),
    _needs,
    _read,
    three_d=False,
    joint_regressor="MSCOCO/J_regressor_coco_hip_smpl.npy",
)
