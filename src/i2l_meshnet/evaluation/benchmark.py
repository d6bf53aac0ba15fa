"""The interface of a benchmark, and the loop that evaluates a network on a benchmark."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.console import progress
from i2l_meshnet.errors import InputError
from i2l_meshnet.models.output import LixelNetwork

Batch = TypeVar("Batch", bound=Sized)


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

    notes: remarks on the numbers, printed before the scoring.
    """

    notes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """All samples in batches. The length of a batch is its number of samples."""

    @abstractmethod
    def score(self, batch: Batch) -> None:
        """Run the system on a batch and keep its errors."""

    @abstractmethod
    def write(self, folder: Path) -> list[str | Table]:
        """Write the results into `folder`. Return what to print."""


@torch.inference_mode()
def evaluate(benchmark: Benchmark[Any]) -> None:
    """Score all samples of a benchmark.

    Raise UserError if a sample cannot be read or the network gives values that are not finite.
    """
    with progress("evaluating", len(benchmark)) as bar:
        for batch in benchmark.batches():
            benchmark.score(batch)
            bar.advance(len(batch))
