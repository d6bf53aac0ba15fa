"""Custom images annotated as in MS-COCO. 3D joints, cameras and SMPL fits are optional (docs/data.md)."""

from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, PersonRow, TableBuilder
from i2l_meshnet.data.sources.base import SMPL_BODIES, Adapter, CocoFile, Needed, smpl_fit
from i2l_meshnet.data.sources.coco import assumed_camera, reshaped_keypoints, with_pelvis
from i2l_meshnet.errors import FileError
from i2l_meshnet.skeletons import Skeleton

SPLITS = ("train", "val", "test")
HIPS = ("L_Hip", "R_Hip")


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    return [
        Needed(f"annotations/{split}.json", "your annotation tool, exported as COCO keypoints"),
        Needed("images", "your pictures", parsed=False),
    ]


def joint_name(name: str) -> str:
    """Our name of a joint: `left_eye` becomes `L_Eye`. Names in our form stay unchanged."""
    for side, prefix in (("left_", "L_"), ("right_", "R_")):
        if name.lower().startswith(side):
            return prefix + name[len(side) :].capitalize()
    return name[:1].upper() + name[1:]


def named_joints(data: CocoFile) -> tuple[str, ...]:
    """Our names of the joints in the file's category."""
    return tuple(joint_name(name) for name in _category(data)["keypoints"])


def _category(data: CocoFile) -> dict[str, Any]:
    named = [category for category in data.categories if category.get("keypoints")]
    if len(named) != 1:
        raise FileError(f"{data.path}: exactly one category must have `keypoints`, not {len(named)}")
    return named[0]


def _skeleton(data: CocoFile) -> tuple[Skeleton, bool]:
    """The joint set of the file's category, and whether the pelvis is computed from its hips."""
    joints = named_joints(data)
    between = "Pelvis" not in joints and all(hip in joints for hip in HIPS)
    links = _category(data).get("skeleton", [])
    bones = tuple((joints[start - 1], joints[end - 1]) for start, end in links)
    joints += ("Pelvis",) if between else ()
    root = next((name for name in ("Pelvis", "Wrist") if name in joints), joints[0])
    return Skeleton("custom", joints, bones, root), between


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    data = CocoFile(folder / "annotations" / f"{split}.json")
    skeleton, between = _skeleton(data)
    count = len(skeleton) - between
    hips = [skeleton.index(hip) for hip in HIPS] if between else []
    rows = TableBuilder(skeleton, tuple(SMPL_BODIES.values()), bones=24, shapes=10)

    def person(annotation: dict[str, Any], image: dict[str, Any]) -> PersonRow | str:
        if annotation.get("iscrowd") or not any(annotation["keypoints"][2::3]):
            return "crowd" if annotation.get("iscrowd") else "no keypoints"
        joints = reshaped_keypoints(annotation["keypoints"], count)
        in_camera = annotation.get("keypoints_cam")
        if in_camera is not None:
            in_camera = np.asarray(in_camera, np.float32)
            if in_camera.shape != (count, 3):
                raise ValueError(f"its `keypoints_cam` must be {count} joints of 3 values, metres")
        if between:
            joints = with_pelvis(joints, *hips)
            in_camera = None if in_camera is None else np.vstack([in_camera, in_camera[hips].mean(0)])
        smpl = annotation.get("smpl_param")
        return PersonRow(
            **data.facts(annotation, assumed_camera(image)),
            path=f"images/{image['file_name']}",
            joints_image=joints[:, :2],
            joints_camera=in_camera,
            visible=joints[:, 2],
            fit=smpl_fit(smpl, SMPL_BODIES[smpl.get("gender", "neutral")]) if smpl else None,
            group=image.get("sequence", ""),
        )

    data.add_people(rows, person)
    return rows.build(data.path)


ADAPTER = Adapter("Custom", SPLITS, _needs, _read, three_d=False)
