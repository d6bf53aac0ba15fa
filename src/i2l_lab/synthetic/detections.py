"""A bank of RTMPose's detections on synthetic images with their ground truth: the errors of a real detector."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from i2l_lab.synthetic.shards import read_shards, run_tasks, use_one_thread
from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.data.sources.synthetic import read_pictures
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, transform_points, warp_image
from i2l_meshnet.io import atomic_path

CROP_SIZE = (256, 192)
"""Height and width of RTMPose's input."""

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


@dataclasses.dataclass(frozen=True)
class DetectOptions:
    """Run RTMPose on synthetic images and save its keypoints with the ground truth."""

    pictures: Path
    """Folder of shards that `synthesize pictures` wrote."""
    out: Path
    """Folder for the bank. Existing shards are kept."""
    workers: int = 1
    """Number of processes."""


@dataclasses.dataclass(frozen=True)
class DetectionBank:
    """Detections and ground truth of many images. Crops are 256 × 192 (height × width) pixels.

    keypoints: the 26 points of `skeletons.HALPE26` in crop pixels, and confidence (the lower of the two peaks of
    RTMPose's heatmaps; not a probability). vertices: crop pixels x, y, and depth in metres relative to the pelvis
    joint. root_depth: depth of the pelvis joint, metres. camera: of the crop. params: in the camera frame.
    """

    keypoints: Float[Tensor, "n 26 3"]
    vertices: Float[Tensor, "n v 3"]
    root_depth: Float[Tensor, "n"]
    camera: Camera
    params: BodyParams


class RtmPose:
    """RTMPose-s as published, in ONNX Runtime on one thread."""

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
    """Run the detector on all images that the bank lacks; return the paths of the bank's shards.

    Raise InputError if there are no images.
    """
    shards = sorted(options.pictures.glob("*_*.npz"))
    if not shards:
        raise InputError(f"{options.pictures} contains no shards of images; make some first", argument="pictures")
    model = assets.ensure("rtmpose")
    tasks = [(model, shard, options.out / shard.name) for shard in shards if not (options.out / shard.name).exists()]
    if tasks:
        run_tasks(_work, tasks, options.workers, "detections (shards)")
    return [options.out / shard.name for shard in shards]


def read_bank(folder: Path, held_out: bool = False) -> DetectionBank:
    """The training detections (or held-out detections) of a bank. Raise FileError if there are none."""
    joined = read_shards(folder, held_out, "detections", "`i2l-lab synthesize detections` makes one")
    return DetectionBank(
        joined["keypoints"],
        joined["vertices"],
        joined["root_depth"],
        Camera(joined["focal"], joined["center"]),
        BodyParams(joined["pose"].float(), joined["shape"], joined["translation"]),
    )


def detect_shard(shard: Path, out: Path, body: Body, detector: RtmPose, batch: int = 16) -> None:
    """Run the detector on a shard of images and write the bank's shard (keys: docs/synthetic.md)."""
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
    # The crop is neither rotated nor sheared, so its camera is the image's camera, scaled and shifted.
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
    """The body and the detector of this process."""
    use_one_thread()
    return load_body("anny"), RtmPose(model)


def _work(task: tuple[Path, Path, Path]) -> None:
    model, shard, out = task
    detect_shard(shard, out, *_process_parts(model))
