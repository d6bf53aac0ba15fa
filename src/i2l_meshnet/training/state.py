"""Training states: everything that a run needs to resume as if it had never stopped."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import atomic_path, read_torch, reading, remove_abandoned
from i2l_meshnet.training.recipe import Recipe

VERSION = 1


@dataclasses.dataclass
class Position:
    """Progress of a training. batch: finished batches of the epoch, per process. step: total optimizer steps."""

    epoch: int
    batch: int = 0
    step: int = 0


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The content of a training state.

    network: parameters and buffers. optimizer: its state dict. average: the moving average of the weights, or empty.
    random, cuda_random: states of the random generators of all processes (processes, bytes). processes: number of
    processes. best: the lowest validation error so far.
    """

    recipe: dict[str, Any]
    position: Position
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor]
    random: Tensor
    cuda_random: Tensor | None
    processes: int
    best: float


class StateFolder:
    """The training states of one stage in a folder. The latest `keep` states are kept."""

    def __init__(self, folder: Path, stage: str, keep: int = 2) -> None:
        self.folder, self._stage, self._keep = folder, stage, keep

    def paths(self) -> list[Path]:
        """The saved states, oldest first."""
        return sorted(self.folder.glob(f"state_{self._stage}_*.pt"))

    def save(self, state: TrainingState) -> Path:
        """Write a state, then remove the oldest states.

        Raise FileError if it cannot be written. Then all earlier states are kept.
        """
        path = self.folder / f"state_{self._stage}_{state.position.step:08d}.pt"
        content = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        content |= {"version": VERSION, "position": dataclasses.asdict(state.position)}
        write_state(path, content)
        for old in self.paths()[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def clean(self) -> None:
        """Remove incomplete files of a killed run."""
        remove_abandoned(self.folder, f"state_{self._stage}_*.pt")

    def load(self, recipe: Recipe, processes: int) -> TrainingState:
        """Read the latest state.

        Raise FileError if there is no state or it is damaged, InputError if its recipe or number of processes differs.
        """
        paths = self.paths()
        if not paths:
            raise FileError(f"{self.folder} has no training state of the {self._stage} stage")
        path = paths[-1]
        with reading(path, "a training state", "remove it to resume from an earlier state"):
            content = read_torch(path)
            version = content.pop("version")
            state = TrainingState(**{**content, "position": Position(**content["position"])})
            differences = recipe.differences(state.recipe)
        if version != VERSION:
            raise FileError(f"{path} is a training state of version {version}, this software reads {VERSION}")
        if differences:
            more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
            raise InputError(
                f"{path} has another recipe: {differences[0]}{more}. Resume without the changes, or start a new run "
                "in another folder from the newest snapshot, with the next epoch as its first epoch"
            )
        if state.processes != processes:
            raise InputError(
                f"{path} was made by {state.processes} processes, not {processes}: the batches would differ. "
                f"Train with {state.processes} processes, or start from the last snapshot"
            )
        return state


def write_state(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values. Raise FileError if that is not possible; an earlier file is kept."""
    with atomic_path(path) as temporary:
        try:
            # An open file: PyTorch would store the name of a path in the file.
            with temporary.open("wb") as file:
                torch.save(_plain(content), file)
        except RuntimeError as error:
            # PyTorch's error for a full disk.
            raise FileError(f"cannot write {path}: the disk may be full; earlier states are still there") from error


def _plain(value: Any) -> Any:
    """A copy in which equal strings are one object, so that equal states have equal bytes.

    A pickle stores whether two equal strings are one object. In a state that was read, they are not.
    """
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return sys.intern(value) if type(value) is str else value


def random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """States of the random generators of this process: CPU, and CUDA device (None for other devices)."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore_random(random: Tensor, cuda_random: Tensor | None, device: torch.device) -> None:
    """Restore the states of `random_states`."""
    torch.set_rng_state(random)
    if cuda_random is not None and device.type == "cuda":
        torch.cuda.set_rng_state(cuda_random, device)
