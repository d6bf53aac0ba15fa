"""Making synthetic pictures by the thousand: shards written whole, by any number of processes."""

import dataclasses
import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from rich.progress import track

from i2l_lab.synthetic.cameras import ViewSampler
from i2l_lab.synthetic.clothes import BaseMesh, Wardrobe
from i2l_lab.synthetic.pictures import Backgrounds, Picture, PictureMaker, PictureMix
from i2l_lab.synthetic.poses import PoseBank, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet import assets
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.io import atomic_path, read_json, write_bytes

Task = TypeVar("Task")
VERSION = 2
"""To be raised when the same seed gives other pictures, so that folders do not mix them."""


@dataclasses.dataclass(frozen=True)
class PictureOptions:
    """Make synthetic pictures of dressed people. Needs the extra [lab]; fetches what it lacks."""

    out: Path
    """Folder for the shards; shards that are there are kept, so a run can be resumed."""
    count: int = 20_000
    """Pictures in all."""
    shard: int = 256
    """Pictures in a shard."""
    seed: int = 1
    """The same seed gives the same pictures, whatever the number of workers."""
    held_out: bool = False
    """Show only poses, clothes, skins and places that other pictures never show: for measuring."""
    mocap: tuple[Path, ...] = ()
    """Folders of motion capture (BVH) to draw poses from."""
    workers: int = 1
    """Processes."""

    @property
    def prefix(self) -> str:
        """Beginning of the shards' names."""
        return "val" if self.held_out else "train"


def generate_pictures(options: PictureOptions) -> list[Path]:
    """Makes what is missing of the pictures and returns the paths of all shards.

    Raises InputError if the folder holds pictures made with other options.
    """
    if options.count < 1 or options.shard < 1 or options.workers < 1:
        raise InputError("count, shard and workers must be at least 1")
    _check_recipe(options)
    starts = range(0, options.count, options.shard)
    paths = [options.out / f"{options.prefix}_{start // options.shard:05d}.npz" for start in starts]
    tasks = [
        (options, path, start, min(options.shard, options.count - start))
        for path, start in zip(paths, starts, strict=True)
        if not path.exists()
    ]
    if tasks:
        for name in ("makehuman", "backgrounds", "interiors"):
            assets.ensure(name)
        run_tasks(_work, tasks, options.workers, "pictures (shards)")
    return paths


def make_picture_maker(held_out: bool, mocap: tuple[Path, ...], seed: int) -> PictureMaker:
    """A maker with Anny and the assets, for training pictures or for held-out ones."""
    body = load_body("anny")
    makehuman = assets.ensure("makehuman")
    bank = PoseBank.build(body, makehuman, mocap, seed=seed).split(held_out)
    sampler = BodySampler(PoseSampler(body, bank), ShapeSampler(body, seed + held_out), ViewSampler(body))
    base = BaseMesh(body.bones)
    places = Backgrounds([assets.ensure("backgrounds"), assets.ensure("interiors")], held_out)
    return PictureMaker(body, sampler, base, Wardrobe(makehuman, base, held_out), places, PictureMix())


def write_pictures(path: Path, pictures: list[Picture]) -> None:
    """Writes a shard, whole or not at all."""
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


def run_tasks(work: Callable[[Task], None], tasks: Sequence[Task], workers: int, description: str) -> None:
    """Runs `work` on each task, with a progress bar; in this process if there is one worker.

    Tasks and `work` must be picklable; what a process needs for all its tasks, `work` keeps itself. Raises UserError
    if a worker is killed.
    """
    if workers == 1:
        for task in track(tasks, description=description):
            work(task)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            for _ in track(pool.map(work, tasks), total=len(tasks), description=description):
                pass
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, perhaps for want of memory: the same command goes on after the work that "
                "is done; try fewer workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@functools.lru_cache(maxsize=1)
def _process_maker(held_out: bool, mocap: tuple[Path, ...], seed: int) -> PictureMaker:
    """The maker of this process, which computes on one thread: it is too large to be sent with every task."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return make_picture_maker(held_out, mocap, seed)


def _work(task: tuple[PictureOptions, Path, int, int]) -> None:
    options, path, start, count = task
    maker = _process_maker(options.held_out, options.mocap, options.seed)
    # Held-out pictures have seeds of their own.
    seed = 2 * options.seed + options.held_out
    write_pictures(path, [maker.make(seed, index) for index in range(start, start + count)])


def _check_recipe(options: PictureOptions) -> None:
    """Notes what the folder's pictures are made with, or checks that they were made so."""
    recipe = {
        "version": VERSION,
        "seed": options.seed,
        "shard": options.shard,
        "mocap": [folder.name for folder in options.mocap],
    }
    path = options.out / f"{options.prefix}.json"
    if path.exists():
        try:
            known = read_json(path)
        except (OSError, ValueError) as error:
            raise FileError(
                f"{path} is damaged ({error}): delete it if you know its pictures to be of {recipe}"
            ) from error
        if known != recipe:
            raise InputError(f"{options.out} holds pictures made with other options ({path.name}); name another folder")
        return
    write_bytes(path, (json.dumps(recipe, indent=1) + os.linesep).encode())
