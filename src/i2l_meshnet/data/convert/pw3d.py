"""Convert 3DPW's release (sequenceFiles/*.pkl) to 3DPW_{train,validation,test}.json."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from i2l_meshnet.bodies.files import read_body_file
from i2l_meshnet.data.convert.resumable import Content, Part, convert_parts
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.crop import box_from_points
from i2l_meshnet.io import reading
from i2l_meshnet.pictures import open_picture

SPLITS = ("train", "validation", "test")
SHAPES = 10
GENDERS = {"f": "female", "m": "male"}


KEYS = ("genders", "betas", "poses", "trans", "jointPositions", "campose_valid", "poses2d")
"""The entries of a sequence that have a value for each person."""


@dataclasses.dataclass(frozen=True)
class Pw3dOptions:
    """Make annotation files from 3DPW's sequences."""

    release: Path
    """The unpacked release: the folder with sequenceFiles/ and imageFiles/."""
    root: Path
    """The folder of the datasets. The files are written to PW3D/data/ in it."""


def convert_pw3d(options: Pw3dOptions) -> int:
    """Write the annotation files of all splits and return 0. Raises FileError if the release is missing.

    The fits are transformed to the camera frame. The translation comes from the release's joints, so no SMPL file is
    needed; the published tool used the neutral body's root joint for the gendered bodies. Ids start at 0 in each split
    and follow the alphabetical order of sequences. RootNet's published boxes have the ids of the published files, which
    differ.
    """
    sequences = next(
        (
            folder
            for folder in (options.release / "sequenceFiles" / "sequenceFiles", options.release / "sequenceFiles")
            if any((folder / split).is_dir() for split in SPLITS)
        ),
        None,
    )
    if sequences is None:
        raise FileError(f"{options.release} has no sequenceFiles/{{train,validation,test}}: name the unpacked release")
    for split in SPLITS:
        files = sorted((sequences / split).glob("*.pkl"))
        parts = [Part(file.stem, file, partial(_sequence, file, options.release / "imageFiles")) for file in files]
        target = options.root / "PW3D" / "data" / f"3DPW_{split}.json"
        convert_parts(parts, target, f"3DPW {split}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Person:
    """A person of a sequence; the arrays from `poses` on have an axis for frames. World frame, m and rad."""

    gender: str
    betas: np.ndarray
    poses: np.ndarray
    trans: np.ndarray
    joints: np.ndarray
    valid: np.ndarray
    openpose: np.ndarray

    def fit(self, frame: int, rotation: np.ndarray, root: np.ndarray) -> dict[str, Any]:
        """`smpl_param` in the camera frame. rotation: from world to camera. root: root joint in the camera frame."""
        pose = self.poses[frame].copy()
        pose[0] = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(pose[0])).as_rotvec()
        root_at_rest = self.joints[frame, 0] - self.trans[frame]
        return {
            "shape": self.betas[:SHAPES].tolist(),
            "pose": pose.ravel().tolist(),
            "trans": (root - root_at_rest).tolist(),
            "gender": GENDERS[str(self.gender)],
        }


def _sequence(file: Path, pictures: Path) -> Content:
    """All frames and people of one sequence."""
    data = read_body_file(file)
    with reading(file, "a sequence of 3DPW", "download the release again"):
        return _content(data, pictures)


def _content(data: dict[str, Any], pictures: Path) -> Content:
    name, extrinsics, intrinsics = str(data["sequence"]), data["cam_poses"], data["cam_intrinsics"]
    people = [
        _Person(gender, betas, poses.reshape(-1, 24, 3), trans, joints.reshape(-1, 24, 3), valid, openpose)
        for gender, betas, poses, trans, joints, valid, openpose in zip(*(data[key] for key in KEYS), strict=True)
    ]
    picture = pictures / name / "image_00000.jpg"
    with reading(picture, "a picture", "unpack imageFiles/ beside sequenceFiles/"), open_picture(picture) as image:
        size = image.size
    focal, center = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    content: Content = {"images": [], "annotations": []}
    for frame, extrinsic in enumerate(extrinsics):
        content["images"].append(
            {
                "id": frame,
                "file_name": f"image_{frame:05d}.jpg",
                "sequence": name,
                "frame_idx": frame,
                "width": size[0],
                "height": size[1],
                "cam_param": {"focal": focal.tolist(), "princpt": center.tolist()},
            }
        )
        for number, person in enumerate(people):
            in_camera = person.joints[frame] @ extrinsic[:3, :3].T + extrinsic[:3, 3]
            pixels = in_camera[:, :2] / in_camera[:, 2:] * focal + center
            inside = ((pixels >= 0) & (pixels < size)).all(1)
            if not person.valid[frame] or not inside.any():
                continue
            content["annotations"].append(
                {
                    "image_id": frame,
                    "person_id": number,
                    "joint_cam": in_camera.tolist(),
                    "joint_img": pixels.tolist(),
                    "openpose_result": person.openpose[frame].T.tolist(),
                    "smpl_param": person.fit(frame, extrinsic[:3, :3], in_camera[0]),
                    "bbox": box_from_points(torch.from_numpy(pixels), torch.from_numpy(inside)).tolist(),
                }
            )
    return content
