"""Convert SURREAL's release (clips and *_info.mat) to images and {train,val}.json."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from i2l_meshnet.bodies import Body, BodyParams, load_body
from i2l_meshnet.console import message
from i2l_meshnet.data.convert.matlab import read_matrices
from i2l_meshnet.data.convert.resumable import Content, Part, convert_parts
from i2l_meshnet.data.sources.base import SMPL_BODIES
from i2l_meshnet.data.sources.surreal import BONES, JOINTS
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.crop import box_from_points
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from i2l_meshnet.io import read_bytes, reading
from i2l_meshnet.pictures import write_picture
from i2l_meshnet.videos import decode_frames, open_video

SPLITS = ("train", "val")
WIDTH, HEIGHT = 320, 240
INFO = {
    "camLoc": (3,),
    "joints2D": (2, BONES),
    "joints3D": (3, BONES),
    "gender": (),
    "pose": (3 * BONES,),
    "shape": (10,),
}
"""Arrays that are read from an _info.mat file, and their axes. All but the first have a last axis for frames."""
UNPACK = "unpack the release again"
MAX_INFO_BYTES = 4_000_000
"""Maximum size of an _info.mat file."""
FOCAL, CENTER = (600.0, 600.0), (160.0, 120.0)
"""Camera of the release's renderer, pixels: a 60 mm lens and a sensor of 32 by 24 mm."""
WORLD_TO_CAMERA = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Rotation from the world to the renderer's camera (x right, y down, z forward), the same in all clips."""


@dataclasses.dataclass(frozen=True)
class SurrealOptions:
    """Make images and annotation files from SURREAL's clips."""

    release: Path
    """The folder with train/ and val/, each run*/<sequence>/<clip>.mp4 and <clip>_info.mat."""
    root: Path
    """The folder of the datasets. Images and annotation files are written to SURREAL/ in it."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL files (male and female)."""
    clips: Path | None = None
    """A list of validation clips, one run/sequence/clip.mp4 per line, such as BodyNet's. Default: all clips."""


def convert_surreal(options: SurrealOptions) -> int:
    """Write images and annotation files and return 0. Raises FileError if the release or body files are missing.

    Training clips give one image per second, validation clips their middle frame. Clips of one frame are skipped. The
    release's parameters and joints describe the mirrored body; they are mirrored back.
    """
    found = {split: sorted((options.release / split).glob("run*/*/*.mp4")) for split in SPLITS}
    if not any(found.values()):
        raise FileError(f"{options.release} has no {{train,val}}/run*/*/*.mp4: name the unpacked release")
    bodies = {gender: load_body(SMPL_BODIES[gender], options.body_dir) for gender in ("female", "male")}
    chosen = _chosen_clips(options.clips)
    for split, clips in found.items():
        if not clips:
            message(f"{options.release} has no split {split}: skipped")
            continue
        names = {clip: clip.relative_to(options.release / split).as_posix() for clip in clips}
        if split == "val" and chosen is not None:
            names = {clip: name for clip, name in names.items() if name in chosen}
        folder = options.root / "SURREAL" / split
        parts = [
            Part(name, clip, partial(_clip, clip, Path(name), folder, split == "train", bodies))
            for clip, name in names.items()
        ]
        target = options.root / "SURREAL" / f"{split}.json"
        convert_parts(parts, target, f"SURREAL {split}")
    return 0


def _chosen_clips(path: Path | None) -> set[str] | None:
    if path is None:
        return None
    with reading(path, "a list of clips"):
        lines = read_bytes(path).decode("utf-8").splitlines()
    return {"/".join(line.strip().split("/")[-3:]) for line in lines if line.strip()}


def _clip(clip: Path, name: Path, folder: Path, per_second: bool, bodies: dict[str, Body]) -> Content:
    """Write the images of one clip to `folder` and return their annotations."""
    content: Content = {"images": [], "annotations": []}
    info = clip.with_name(f"{clip.stem}_info.mat")
    facts = _read_info(info)
    for frame, picture in _frames(clip, per_second):
        if frame >= len(facts["gender"]):
            raise FileError(f"{clip} has more frames than {info.name}: {UNPACK}")
        pixels, world = facts["joints2D"][..., frame].T, facts["joints3D"][..., frame].T
        mirror = list(JOINTS.mirror_permutation)
        pixels, in_camera = pixels[mirror], (world[mirror] - facts["camLoc"]) @ WORLD_TO_CAMERA.T
        inside = ((pixels >= 0) & (pixels < (WIDTH, HEIGHT))).all(1)
        if not inside.any():
            continue
        gender = "male" if facts["gender"][frame] else "female"
        pose, shape = (facts[name][:, frame].astype(np.float32) for name in ("pose", "shape"))
        with reading(info, f"an info file of SURREAL with a pose of frame {frame}", UNPACK):
            smpl = _in_camera(bodies[gender], pose, shape, in_camera)
        file_name = (name.parent / f"{clip.stem}_{frame:03d}.jpg").as_posix()
        write_picture(folder / file_name, picture)
        number = len(content["images"])
        content["images"].append(
            {
                "id": number,
                "file_name": file_name,
                "width": WIDTH,
                "height": HEIGHT,
                "cam_param": {"focal": FOCAL, "princpt": CENTER},
            }
        )
        content["annotations"].append(
            {
                "image_id": number,
                "joint_img": pixels.tolist(),
                "joint_cam": in_camera.tolist(),
                "bbox": box_from_points(torch.from_numpy(pixels), torch.from_numpy(inside)).tolist(),
                "smpl_param": {**smpl, "gender": gender},
            }
        )
    return content


def _in_camera(body: Body, pose: np.ndarray, shape: np.ndarray, joints: np.ndarray) -> dict[str, list[float]]:
    """Mirror the parameters back and align the body's joints with `joints` (24, 3; camera frame, m)."""
    rotations = axis_angle_to_matrix(torch.from_numpy(pose.copy()).view(BONES, 3))
    params = body.mirror(BodyParams(rotations, torch.from_numpy(shape.copy()), torch.zeros(3)))
    posed = body(params).joints[:BONES].double().numpy()
    rotation = Rotation.align_vectors(joints - joints.mean(0), posed - posed.mean(0))[0]
    rotations = matrix_to_axis_angle(params.pose)
    rotations[0] = torch.from_numpy((rotation * Rotation.from_matrix(params.pose[0].numpy())).as_rotvec())
    shift = joints.mean(0) - rotation.apply(posed.mean(0))
    return {
        "pose": rotations.flatten().tolist(),
        "shape": shape.tolist(),
        "trans": (rotation.apply(posed[0]) + shift - posed[0]).tolist(),
    }


def _read_info(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays in `INFO` from an _info.mat file. Raises FileError if it is missing or damaged."""
    with reading(path, "an info file of SURREAL", UNPACK):
        facts = read_matrices(read_bytes(path, MAX_INFO_BYTES), INFO)
        for name in ("camLoc", "gender"):
            facts[name] = facts[name].ravel()
        frames = len(facts["gender"])
        for name, axes in INFO.items():
            if frames == 1 and facts[name].shape == axes and name != "camLoc":  # MATLAB drops a last axis of length 1.
                facts[name] = facts[name][..., None]
            whole = facts[name].shape == (axes if name == "camLoc" else (*axes, frames))
            if not whole or not np.isfinite(facts[name]).all():
                raise ValueError(f"its {name} is damaged or of another shape")
    return facts


def _frames(clip: Path, per_second: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Yield numbers and RGB images of the used frames. A clip of one frame has none."""
    with reading(clip, "a video of SURREAL", UNPACK), open_video(clip) as container:
        video = container.streams.video[0]
        count, rate, size = video.frames, max(int(video.guessed_rate or 1), 1), (video.width, video.height)
        if count == 0 or size != (WIDTH, HEIGHT):
            raise ValueError(f"it has {count} frames of {size} pixels")
        if count == 1:
            return
        wanted = range(0, count, rate) if per_second else (count // 2,)
        for number, frame in enumerate(decode_frames(container)):
            if number in wanted:
                yield number, frame.to_ndarray(format="rgb24")
            if number >= wanted[-1]:
                return
