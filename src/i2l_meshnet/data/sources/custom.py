"""One's own pictures, annotated as in MS-COCO; 3D joints, cameras and SMPL fits may be added (docs/data.md)."""

from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, TableBuilder
from i2l_meshnet.data.sources.base import SMPL_BODIES, Adapter, CocoFile, Needed, smpl_fit
from i2l_meshnet.data.sources.coco import assumed_camera, with_pelvis
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
    """Our name of a joint: `left_eye` becomes `L_Eye`; names already in our form stay."""
    for side, prefix in (("left_", "L_"), ("right_", "R_")):
        if name.lower().startswith(side):
            return prefix + name[len(side) :].capitalize()
    return name[:1].upper() + name[1:]


def named_joints(data: CocoFile) -> tuple[str, ...]:
    """Our names of the joints that the file's category names."""
    return tuple(joint_name(name) for name in _category(data)["keypoints"])


def _category(data: CocoFile) -> dict[str, Any]:
    named = [category for category in data.categories if category.get("keypoints")]
    if len(named) != 1:
        raise FileError(f"{data.path}: exactly one category must name its `keypoints`, not {len(named)}")
    return named[0]


def _skeleton(data: CocoFile) -> tuple[Skeleton, bool]:
    """The joint set that the file's category names, and whether the pelvis is made from its hips."""
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
    for annotation, image in data.people():
        if annotation.get("iscrowd") or not any(annotation["keypoints"][2::3]):
            rows.leave_out("crowd" if annotation.get("iscrowd") else "no keypoints")
            continue
        where = f"{data.path}: annotation {annotation['id']}"
        flat = np.asarray(annotation["keypoints"], np.float32)
        if flat.size != count * 3:
            raise FileError(f"{where} has {flat.size / 3:g} joints, not {count}")
        joints = flat.reshape(count, 3)
        in_camera = annotation.get("keypoints_cam")
        if in_camera is not None:
            in_camera = np.asarray(in_camera, np.float32)
            if in_camera.shape != (count, 3):
                raise FileError(f"{where}: `keypoints_cam` must hold {count} joints of 3 values, metres")
        if between:
            joints = with_pelvis(joints, *hips)
            in_camera = None if in_camera is None else np.vstack([in_camera, in_camera[hips].mean(0)])
        smpl = annotation.get("smpl_param")
        rows.add(
            **data.facts(annotation, assumed_camera(image)),
            path=f"images/{image['file_name']}",
            joints_image=joints[:, :2],
            joints_camera=in_camera,
            visible=joints[:, 2],
            fit=smpl_fit(smpl, SMPL_BODIES[smpl.get("gender", "neutral")]) if smpl else None,
            group=image.get("sequence", ""),
        )
    return rows.build(data.path)


ADAPTER = Adapter("Custom", SPLITS, _needs, _read, three_d=False)
