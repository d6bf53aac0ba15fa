"""A bank of RTMPose's detections on synthetic pictures, with the truth: what real detectors get wrong, and how."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from i2l_lab.synthetic.generate import run_tasks
from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.data.sources.synthetic import read_pictures
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, transform_points, warp_image
from i2l_meshnet.io import atomic_path, read_arrays, reading

CROP_SIZE = (256, 192)
"""Height and width of RTMPose's input."""

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


@dataclasses.dataclass(frozen=True)
class DetectOptions:
    """Run RTMPose on synthetic pictures and keep its keypoints beside the truth."""

    pictures: Path
    """Folder of shards that `generate_pictures` wrote."""
    out: Path
    """Folder for the bank; shards that are there are kept."""
    workers: int = 1
    """Processes."""


@dataclasses.dataclass(frozen=True)
class DetectionBank:
    """Detections and truth of many pictures; crops are 256 × 192 (height × width) px.

    keypoints: the 26 points of `skeletons.HALPE26` in crop pixels, and confidence (the lesser of the two peaks of
    RTMPose's heatmaps, no probability). vertices: crop pixels x, y and depth in metres relative to the pelvis
    joint. root_depth: that joint's distance along z, metres. camera: of the crop. params: in the camera's frame.
    """

    keypoints: Float[Tensor, "n 26 3"]
    vertices: Float[Tensor, "n v 3"]
    root_depth: Float[Tensor, "n"]
    camera: Camera
    params: BodyParams


class RtmPose:
    """RTMPose-s as published, run by onnxruntime on one thread."""

    def __init__(self, path: Path) -> None:
        from i2l_meshnet.runtimes import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self._input: str = self._session.get_inputs()[0].name

    def __call__(self, crops: UInt8[np.ndarray, "n 256 192 3"]) -> Float32[np.ndarray, "n 26 3"]:
        """Keypoints of RGB crops: x and y in crop pixels, confidence.

        Each of the two heatmaps of a point has two bins per pixel.
        """
        batch = ((crops.astype(np.float32) - MEAN) / DEVIATION).transpose(0, 3, 1, 2)
        x, y = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        confidence = np.minimum(x.max(-1), y.max(-1))
        return np.stack([x.argmax(-1) / 2, y.argmax(-1) / 2, confidence], -1).astype(np.float32)


def detect_bank(options: DetectOptions) -> list[Path]:
    """Runs the detector on all pictures that the bank lacks; returns the paths of the bank's shards.

    Raises InputError if there are no pictures.
    """
    shards = sorted(options.pictures.glob("*_*.npz"))
    if not shards:
        raise InputError(f"{options.pictures} holds no shards of pictures; make some first")
    model = assets.ensure("rtmpose")
    tasks = [(model, shard, options.out / shard.name) for shard in shards if not (options.out / shard.name).exists()]
    if tasks:
        run_tasks(_work, tasks, options.workers, "detections (shards)")
    return [options.out / shard.name for shard in shards]


def read_bank(folder: Path, held_out: bool = False) -> DetectionBank:
    """The detections for training, or the held-out ones, of a bank. Raises FileError if there are none."""
    joined = read_shards(folder, held_out, "detections", "make it with detect_bank")
    return DetectionBank(
        joined["keypoints"],
        joined["vertices"],
        joined["root_depth"],
        Camera(joined["focal"], joined["center"]),
        BodyParams(joined["pose"].float(), joined["shape"], joined["translation"]),
    )


def read_shards(folder: Path, held_out: bool, what: str, remedy: str) -> dict[str, Tensor]:
    """The arrays of a bank's shards for training, or of the held-out ones, joined along their first axis.

    what: is in them. remedy: what to do if there are none. Raises FileError then, and for a shard that is damaged.
    """
    paths = sorted(folder.glob("val_*.npz" if held_out else "train_*.npz"))
    if not paths:
        raise FileError(f"{folder} holds no bank of {what}; {remedy}")
    parts: dict[str, list[Tensor]] = {}
    for path in paths:
        with reading(path, f"a shard of {what}", "delete it and make it again"):
            for name, array in read_arrays(path).items():
                parts.setdefault(name, []).append(torch.from_numpy(array))
    try:
        return {name: torch.cat(tensors) for name, tensors in parts.items()}
    except RuntimeError as error:
        raise FileError(f"{folder} holds shards of {what} that do not fit together; make them again") from error


def detect_shard(shard: Path, out: Path, body: Body, detector: RtmPose, batch: int = 16) -> None:
    """Writes the bank's shard of a shard of pictures (keys: see docs/synthetic.md)."""
    pictures = read_pictures(shard)
    affine = Crop.around(torch.from_numpy(pictures.box), CROP_SIZE).affine
    crops = np.stack([warp_image(pictures.image(i), affine[i], CROP_SIZE) for i in range(len(pictures))])
    keypoints = np.concatenate([detector(crops[i : i + batch]) for i in range(0, len(crops), batch)])
    with torch.no_grad():
        mesh = body(pictures.params)
    picture_camera = Camera(torch.from_numpy(pictures.focal), torch.from_numpy(pictures.center))
    pixels = transform_points(affine, picture_camera.project(mesh.vertices))
    root = mesh.joints[:, body.skeleton.root_index, 2]
    vertices = torch.cat([pixels, mesh.vertices[..., 2:] - root[:, None, None]], 2)
    # The crop neither turns nor shears, so its camera is the picture's, zoomed and shifted.
    zoom = torch.stack([affine[:, 0, 0], affine[:, 1, 1]], 1)
    with atomic_path(out) as temporary:
        np.savez(
            temporary,
            keypoints=keypoints,
            vertices=vertices.half().numpy(),
            root_depth=root.numpy(),
            affine=affine.numpy(),
            focal=(picture_camera.focal * zoom).numpy(),
            center=transform_points(affine, picture_camera.center[:, None])[:, 0].numpy(),
            pose=pictures.params.pose.half().numpy(),
            shape=pictures.params.shape.numpy(),
            translation=pictures.params.translation.numpy(),
        )


@functools.lru_cache(maxsize=1)
def _process_parts(model: Path) -> tuple[Body, RtmPose]:
    """The body and the detector of this process, which computes on one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return load_body("anny"), RtmPose(model)


def _work(task: tuple[Path, Path, Path]) -> None:
    model, shard, out = task
    detect_shard(shard, out, *_process_parts(model))
