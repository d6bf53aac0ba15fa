"""3DPW's release (sequenceFiles/*.pkl) to 3DPW_{train,validation,test}.json."""

import dataclasses
from functools import partial
from pathlib import Path

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


@dataclasses.dataclass(frozen=True)
class Pw3dOptions:
    """Where 3DPW is and where its annotation files go."""

    release: Path
    """The unpacked release: the folder with sequenceFiles/ and imageFiles/."""
    root: Path
    """The folder of the data sets; the files are written to PW3D/data/ in it."""


def convert_pw3d(options: Pw3dOptions) -> int:
    """Writes the annotation files of all splits; returns 0. FileError if the release is not where it should be.

    The fits are turned into the camera frame. The translation is taken from the release's own joints, so no SMPL
    file is needed; the published tool used the neutral body's root joint for the gendered bodies. Ids count
    from 0 in each split, over the sequences in alphabetical order: RootNet's published boxes belong to the published
    annotation files, not to these.
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
        raise FileError(
            f"{options.release} holds no sequenceFiles/{{train,validation,test}}: name the unpacked release"
        )
    for split in SPLITS:
        files = sorted((sequences / split).glob("*.pkl"))
        parts = [Part(file.stem, file, partial(_sequence, file, options.release / "imageFiles")) for file in files]
        target = options.root / "PW3D" / "data" / f"3DPW_{split}.json"
        convert_parts(parts, target, f"3DPW {split}")
    return 0


def _sequence(file: Path, pictures: Path) -> Content:
    """All frames and people of one sequence."""
    data = read_body_file(file)
    with reading(file, "a sequence of 3DPW", "download the release again"):
        name = str(data["sequence"])
        extrinsics, intrinsics = data["cam_poses"], data["cam_intrinsics"]
        keys = ("genders", "betas", "poses", "trans", "jointPositions", "campose_valid", "poses2d")
        people = [
            (gender, betas, poses.reshape(-1, 24, 3), trans, joints.reshape(-1, 24, 3), valid, openpose)
            for gender, betas, poses, trans, joints, valid, openpose in zip(*(data[key] for key in keys), strict=True)
        ]
    picture = pictures / name / "image_00000.jpg"
    with reading(picture, "a picture", "unpack imageFiles/ beside sequenceFiles/"), open_picture(picture) as image:
        width, height = image.size
    focal, center = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    content: Content = {"images": [], "annotations": []}
    for frame, extrinsic in enumerate(extrinsics):
        content["images"].append(
            {
                "id": frame,
                "file_name": f"image_{frame:05d}.jpg",
                "sequence": name,
                "frame_idx": frame,
                "width": width,
                "height": height,
                "cam_param": {"focal": focal.tolist(), "princpt": center.tolist()},
            }
        )
        rotation, translation = extrinsic[:3, :3], extrinsic[:3, 3]
        for person, (gender, betas, poses, trans, joints, valid, openpose) in enumerate(people):
            if not valid[frame]:
                continue
            in_camera = joints[frame] @ rotation.T + translation
            pixels = in_camera[:, :2] / in_camera[:, 2:] * focal + center
            inside = ((pixels >= 0) & (pixels < (width, height))).all(1)
            if not inside.any():
                continue
            pose = poses[frame].copy()
            pose[0] = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(pose[0])).as_rotvec()
            root_at_rest = joints[frame, 0] - trans[frame]
            content["annotations"].append(
                {
                    "image_id": frame,
                    "person_id": person,
                    "joint_cam": in_camera.tolist(),
                    "joint_img": pixels.tolist(),
                    "openpose_result": openpose[frame].T.tolist(),
                    "smpl_param": {
                        "shape": betas[:SHAPES].tolist(),
                        "pose": pose.ravel().tolist(),
                        "trans": (in_camera[0] - root_at_rest).tolist(),
                        "gender": GENDERS[str(gender)],
                    },
                    "bbox": box_from_points(torch.from_numpy(pixels), torch.from_numpy(inside)).tolist(),
                }
            )
    return content
