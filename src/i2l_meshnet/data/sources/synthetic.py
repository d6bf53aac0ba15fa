"""Synthetic images as a dataset: reads shards into a `Source`."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.data.annotation import AnnotationTable, Fit, PersonRow, TableBuilder
from i2l_meshnet.data.cache import load_table
from i2l_meshnet.data.sources.base import Source
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.rotations import matrix_to_axis_angle
from i2l_meshnet.io import read_arrays, reading, require_shapes, write_bytes
from i2l_meshnet.pictures import decode_picture

BODY = "anny"
SPLITS = ("train", "val")
PICTURES = "pictures"


@dataclasses.dataclass(frozen=True)
class PictureShard:
    """Images as concatenated JPEG files, with the ground truth of the person in each.

    start: (n + 1) offsets of the files in `jpeg`.
    """

    jpeg: UInt8[np.ndarray, "bytes"]
    start: np.ndarray
    box: Float32[np.ndarray, "n 4"]
    focal: Float32[np.ndarray, "n 2"]
    center: Float32[np.ndarray, "n 2"]
    params: BodyParams

    def __len__(self) -> int:
        return len(self.box)

    def image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image `i`, RGB."""
        picture = decode_picture(self.jpeg[self.start[i] : self.start[i + 1]].tobytes(), cv2.IMREAD_COLOR)
        if picture is None:
            raise FileError(f"picture {i} of a shard is damaged; delete the shard and make it again")
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def read_pictures(path: Path) -> PictureShard:
    """Read a shard. Raises FileError if the file is not a shard."""
    with reading(path, "a shard of pictures", "delete it and make it again"):
        data = read_arrays(path)
        params = BodyParams(*(torch.from_numpy(data[name]) for name in ("pose", "shape", "translation")))
        shard = PictureShard(data["jpeg"], data["start"], data["box"], data["focal"], data["center"], params)
        require_shapes(shard)
        start = shard.start
        whole = start.shape == (len(shard) + 1,) and start.dtype.kind in "iu" and (np.diff(start) >= 0).all()
        if not whole or start[0] < 0 or start[-1] > len(shard.jpeg):
            raise ValueError("the offsets of its images are wrong")
        return shard


def synthetic_source(folder: Path, split: str) -> Source:
    """Open the images of the shards in `folder`, with fits of Anny.

    The first time, the images are unpacked into a folder beside the shards. Raises InputError for an unknown split,
    FileError for a folder without shards, for a damaged shard, or if the images cannot be written.
    """
    if split not in SPLITS:
        raise InputError(f"synthetic pictures have the splits {', '.join(SPLITS)}, not {split!r}")
    shards = sorted(folder.glob(f"{split}_*.npz"))
    if not shards:
        raise FileError(f"{folder} has no shards {split}_*.npz: make them as docs/synthetic.md says")

    def parse() -> AnnotationTable:
        body = load_body(BODY)
        rows = TableBuilder(body.skeleton, (BODY,), len(body.bones), len(body.shape_names), trusted_fits=True)
        first = 0
        for path in shards:
            shard = read_pictures(path)
            _unpack(shard, folder / PICTURES, path.stem)
            _add(shard, body, rows, path, first)
            first += len(shard)
        return rows.build(folder)

    table = load_table(f"synthetic-{split}", folder, shards, parse)
    return Source("Synthetic", split, folder, table, three_d=True)


def _unpack(shard: PictureShard, folder: Path, stem: str) -> None:
    for i in range(len(shard)):
        path = folder / f"{stem}_{i:04d}.jpg"
        if not path.exists():
            write_bytes(path, shard.jpeg[shard.start[i] : shard.start[i + 1]].tobytes())


def _add(shard: PictureShard, body: Body, rows: TableBuilder, path: Path, first: int) -> None:
    """Add a shard's people with ids from `first`."""
    with torch.no_grad():
        joints = body(shard.params).joints
    pixels = joints[..., :2] / joints[..., 2:] * torch.from_numpy(shard.focal)[:, None]
    pixels = pixels + torch.from_numpy(shard.center)[:, None]
    pose = matrix_to_axis_angle(shard.params.pose).flatten(1).numpy()
    for i in range(len(shard)):
        height, width = shard.image(i).shape[:2]
        rows.add(
            PersonRow(
                where=str(path),
                id=first + i,
                path=f"{PICTURES}/{path.stem}_{i:04d}.jpg",
                size=(width, height),
                box=shard.box[i],
                focal=shard.focal[i],
                center=shard.center[i],
                joints_image=pixels[i].numpy(),
                joints_camera=joints[i].numpy(),
                fit=Fit(pose[i], shard.params.shape[i].numpy(), shard.params.translation[i].numpy(), BODY),
            )
        )
