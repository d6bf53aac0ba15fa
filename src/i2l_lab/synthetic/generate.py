"""Shards of synthetic images, made by any number of processes."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import numpy as np

from i2l_lab.synthetic.cameras import ViewSampler
from i2l_lab.synthetic.clothes import BaseMesh, Wardrobe
from i2l_lab.synthetic.pictures import ASSETS, Backgrounds, Picture, PictureMaker, PictureMix
from i2l_lab.synthetic.poses import PoseBank, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_lab.synthetic.shards import run_tasks, shard_paths, use_one_thread
from i2l_meshnet import assets
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.io import atomic_path, read_json, reading, write_bytes

VERSION = 2
"""Increase it whenever a change of the code makes the same seed give other images.

Then no folder mixes old and new images.
"""


@dataclasses.dataclass(frozen=True)
class PictureOptions:
    """Make synthetic images of dressed people. Needs the extra [lab]; downloads missing assets."""

    out: Path
    """Folder for the shards. Existing shards are kept, so a run can be resumed."""
    count: int = 20_000
    """Total number of images."""
    shard: int = 256
    """Images per shard."""
    seed: int = 1
    """Random seed. The same seed makes the same images, for any number of workers."""
    held_out: bool = False
    """Make images for evaluation, with poses, clothes, skins and places that training images never show."""
    mocap: tuple[Path, ...] = ()
    """Folders of motion capture (BVH) to take poses from."""
    workers: int = 1
    """Number of processes."""


def generate_pictures(options: PictureOptions) -> list[Path]:
    """Make the missing shards; return the paths of all shards.

    Raise InputError if the folder contains images made with other options.
    """
    if options.count < 1 or options.shard < 1 or options.workers < 1:
        raise InputError("count, shard and workers must be at least 1")
    _check_recipe(options)
    shards = shard_paths(options.out, options.count, options.shard, options.held_out)
    tasks = [(options, path, indices) for path, indices in shards.items() if not path.exists()]
    if tasks:
        for name in ASSETS:
            assets.ensure(name)
        run_tasks(_work, tasks, options.workers, "images (shards)")
    return [*shards]


def make_picture_maker(held_out: bool, mocap: tuple[Path, ...], seed: int) -> PictureMaker:
    """A `PictureMaker` with the Anny body and the assets, for training images or held-out images."""
    body = load_body("anny")
    makehuman = assets.ensure("makehuman")
    bank = PoseBank.build(body, makehuman, mocap, seed=seed).split(held_out)
    sampler = BodySampler(PoseSampler(body, bank), ShapeSampler(body, seed + held_out), ViewSampler(body))
    base = BaseMesh(body.bones)
    places = Backgrounds([assets.ensure("backgrounds"), assets.ensure("interiors")], held_out)
    return PictureMaker(body, sampler, base, Wardrobe(makehuman, base, held_out), places, PictureMix())


def write_pictures(path: Path, pictures: list[Picture]) -> None:
    """Write a shard, completely or not at all."""
    lengths = [len(picture.jpeg) for picture in pictures]
    params = BodyParams.stack([picture.params for picture in pictures])
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            jpeg=np.concatenate([picture.jpeg for picture in pictures]),
            start=np.concatenate([[0], np.cumsum(lengths)]),
            box=np.stack([picture.box for picture in pictures]),
            focal=np.stack([picture.focal for picture in pictures]),
            center=np.stack([picture.center for picture in pictures]),
            pose=params.pose.numpy(),
            shape=params.shape.numpy(),
            translation=params.translation.numpy(),
        )


@functools.lru_cache(maxsize=1)
def _process_maker(held_out: bool, mocap: tuple[Path, ...], seed: int) -> PictureMaker:
    """The `PictureMaker` of this process, made once. It is too large to be sent with every task."""
    use_one_thread()
    return make_picture_maker(held_out, mocap, seed)


def _work(task: tuple[PictureOptions, Path, range]) -> None:
    options, path, indices = task
    maker = _process_maker(options.held_out, options.mocap, options.seed)
    # Held-out images have different seeds.
    seed = 2 * options.seed + options.held_out
    write_pictures(path, [maker.make(seed, index) for index in indices])


def _check_recipe(options: PictureOptions) -> None:
    """Write to the folder the settings that determine the images.

    If an earlier run wrote them already, compare them instead.
    """
    recipe = {
        "version": VERSION,
        "seed": options.seed,
        "shard": options.shard,
        "mocap": [folder.name for folder in options.mocap],
    }
    path = options.out / f"{'val' if options.held_out else 'train'}.json"
    if path.exists():
        with reading(path, "the settings of the images", fix=f"delete it if the images were made with {recipe}"):
            known = read_json(path)
        if known != recipe:
            raise InputError(f"{path} is from a run with other options; use another folder", argument="out")
        return
    write_bytes(path, (json.dumps(recipe, indent=1) + os.linesep).encode())
