"""The interface of a benchmark, and the evaluation of a network on a benchmark, in one process or several."""

import contextlib
import dataclasses
import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.console import progress
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import read_json
from i2l_meshnet.models.output import LixelNetwork

Batch = TypeVar("Batch", bound=Sized)
Item = TypeVar("Item")

RESULTS = ("metrics.json", "multiview.json")
"""Files of results that have the identity of their benchmark."""
MAX_RESULTS = 100_000_000
"""Maximum size of these files, bytes."""


@dataclasses.dataclass(frozen=True)
class Share:
    """The batches that one of `count` processes scores: consecutive ones, so that shares can be joined in order."""

    index: int = 0
    count: int = 1

    def of(self, batches: Sequence[Item]) -> Sequence[Item]:
        """The process's part of all batches."""
        start, end = (-(-len(batches) * index // self.count) for index in (self.index, self.index + 1))
        return batches[start:end]


WHOLE = Share()
"""All batches."""


@dataclasses.dataclass(frozen=True)
class System:
    """A network to evaluate. network, body: on `device`. weights: file name of the network, for the results."""

    network: LixelNetwork
    body: Body
    device: torch.device
    weights: str


def keypoint_regressor(body: Body, benchmark: str) -> Float[Tensor, "26 v"]:
    """The matrix that regresses the detector's keypoints from vertices. Raise InputError if the body has none."""
    regressor: Float[Tensor, "26 v"] | None = getattr(body, "keypoint_regressor", None)
    if regressor is None:
        raise InputError(f"{benchmark} needs a network of the body 'anny', not of {body.name!r}")
    return regressor


class Benchmark(ABC, Generic[Batch]):
    """Samples, how they are scored, and which results are written. `evaluate` runs it.

    notes: remarks on the numbers, printed before the scoring. identity: the benchmark `data` and, if it has them, its
    `split`, `stage` and `annotations`. It is in the file of results, and a folder has results of one identity.
    """

    notes: tuple[str, ...] = ()
    identity: dict[str, str]

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def batches(self, share: Share = WHOLE) -> Iterator[Batch]:
        """The samples of a share, in batches. The length of a batch is its number of samples."""

    @abstractmethod
    def score(self, batch: Batch) -> None:
        """Run the system on a batch and keep its errors."""

    @abstractmethod
    def collected(self) -> Any:
        """What `score` has kept, for another process: tensors on the CPU and plain values."""

    @abstractmethod
    def merge(self, parts: Sequence[Any]) -> None:
        """Add what other processes have collected, in the order of their shares."""

    @abstractmethod
    def write(self, folder: Path) -> list[str | Table]:
        """Write the results into `folder`. Return what to print."""


@torch.inference_mode()
def evaluate(benchmark: Benchmark[Any], share: Share = WHOLE, shown: bool = True) -> None:
    """Score the samples of a share, by default all. shown: show the progress.

    Raise UserError if a sample cannot be read or the network gives values that are not finite.
    """
    with progress("evaluating", len(benchmark)) if shown else contextlib.nullcontext() as bar:
        for batch in benchmark.batches(share):
            benchmark.score(batch)
            if bar is not None:
                bar.advance(len(batch) * share.count)  # The other processes are about as far.


def evaluate_in_processes(benchmark: Benchmark[Any], makers: Sequence[Callable[[], Benchmark[Any]]]) -> None:
    """Score the samples in this process, with `benchmark`, and in one more process per maker.

    makers: make the benchmark in their process, from values that can be pickled. Raise UserError like `evaluate`, or if
    a process was killed.
    """
    if not makers:
        evaluate(benchmark)
        return
    count = len(makers) + 1
    with ProcessPoolExecutor(len(makers), multiprocessing.get_context("spawn")) as pool:
        try:
            parts = [pool.submit(_collect, maker, Share(index, count)) for index, maker in enumerate(makers, 1)]
            evaluate(benchmark, Share(0, count))
            benchmark.merge([part.result() for part in parts])
        except BrokenProcessPool as error:
            raise InputError("a process was killed, perhaps for want of memory: use fewer devices", "gpu") from error


def _collect(maker: Callable[[], Benchmark[Any]], share: Share) -> Any:
    benchmark = maker()
    evaluate(benchmark, share, shown=False)
    return benchmark.collected()


def require_own_folder(folder: Path, identity: dict[str, str]) -> None:
    """Raise InputError if a folder holds results of another benchmark, dataset, split or stage."""
    for path in (folder / name for name in RESULTS):
        if not path.exists():
            continue
        try:
            content = read_json(path, MAX_RESULTS)
            found = {key: content[key] for key in ("data", "split", "annotations", "stage") if key in content}
        except (FileError, TypeError, ValueError):
            found = {}
        if found != identity:
            other = " ".join(map(str, found.values())) or "another program"
            raise InputError(
                f"{path} has results of {other}, not of {' '.join(identity.values())}: choose another folder",
                argument="out",
            )
