"""Shards: .npz files of many samples, made by any number of processes. A shard is complete or missing."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import cv2
import torch
from rich.progress import track
from torch import Tensor

from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.io import read_arrays, reading

Task = TypeVar("Task")


def shard_paths(folder: Path, count: int, size: int, held_out: bool = False) -> dict[Path, range]:
    """Paths of the shards of `count` samples, and the indices of the samples in each."""
    prefix = "val" if held_out else "train"
    starts = range(0, count, size)
    return {folder / f"{prefix}_{start // size:05d}.npz": range(start, min(start + size, count)) for start in starts}


def run_tasks(work: Callable[[Task], None], tasks: Sequence[Task], workers: int, description: str) -> None:
    """Run `work` on each task, with a progress bar; in this process if there is one worker.

    Tasks and `work` must be picklable. `work` caches what its process needs for all tasks. Raise UserError if a worker
    is killed.
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
                "a worker process was killed, perhaps because memory ran out. Run the same command again: it keeps the "
                "finished work. Try fewer workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def use_one_thread() -> None:
    """Compute on one thread: each worker process has its own core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def read_shards(folder: Path, held_out: bool, what: str, fix: str) -> dict[str, Tensor]:
    """The arrays of all training shards (or held-out shards) of a folder, concatenated along their first axis.

    what: their content. fix: what to do if there are none. Raise FileError if there are none, or if one is damaged.
    """
    paths = sorted(folder.glob("val_*.npz" if held_out else "train_*.npz"))
    if not paths:
        raise FileError(f"{folder} contains no bank of {what}; {fix}")
    parts: dict[str, list[Tensor]] = {}
    for path in paths:
        with reading(path, f"a shard of {what}", fix="delete it and make it again"):
            for name, array in read_arrays(path).items():
                parts.setdefault(name, []).append(torch.from_numpy(array))
    with reading(folder, f"a bank of {what} whose shards fit together", fix="make them again"):
        return {name: torch.cat(tensors) for name, tensors in parts.items()}
