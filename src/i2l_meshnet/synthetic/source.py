"""Synthetic pictures as a data set like the others: shards in, `Source` out."""

from pathlib import Path

import torch

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.data.annotation import AnnotationTable, Fit, TableBuilder
from i2l_meshnet.data.cache import load_table
from i2l_meshnet.data.sources.base import Source
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.files import write_bytes
from i2l_meshnet.geometry.rotations import matrix_to_axis_angle
from i2l_meshnet.synthetic.generate import PictureShard, read_pictures

BODY = "anny"
SPLITS = ("train", "val")
PICTURES = "pictures"


def synthetic_source(folder: Path, split: str) -> Source:
    """The pictures of the shards in `folder` (see `generate.PictureOptions`), with Anny as their fits.

    The first time, the pictures are unpacked into a folder beside the shards. Raises InputError for an unknown
    split, FileError for a folder without shards, a broken one, or where nothing can be written.
    """
    if split not in SPLITS:
        raise InputError(f"synthetic pictures have the splits {', '.join(SPLITS)}, not {split!r}")
    shards = sorted(folder.glob(f"{split}_*.npz"))
    if not shards:
        raise FileError(f"{folder} holds no shards {split}_*.npz: make them as docs/synthetic.md says")

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
    """Adds a shard's people, counted on from `first`."""
    with torch.no_grad():
        joints = body(shard.params).joints
    pixels = joints[..., :2] / joints[..., 2:] * torch.from_numpy(shard.focal)[:, None]
    pixels = pixels + torch.from_numpy(shard.center)[:, None]
    pose = matrix_to_axis_angle(shard.params.pose).flatten(1).numpy()
    for i in range(len(shard)):
        height, width = shard.image(i).shape[:2]
        rows.add(
            where=str(path),
            id=first + i,
            path=f"{PICTURES}/{path.stem}_{i:04d}.jpg",
            size=(width, height),
            box=shard.box[i],
            prepared=False,
            focal=shard.focal[i],
            center=shard.center[i],
            joints_image=pixels[i].numpy(),
            joints_camera=joints[i].numpy(),
            fit=Fit(pose[i], shard.params.shape[i].numpy(), shard.params.translation[i].numpy(), BODY),
            root_depth=float(joints[i, body.skeleton.root_index, 2]),
        )
