"""Saved training states: all that a run needs to go on as if it had never stopped."""

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
    """How far a training is. batch: batches of the epoch that each process has had. step: optimizer steps in all."""

    epoch: int
    batch: int = 0
    step: int = 0


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """What is saved.

    network: parameters and buffers. optimizer: its state dict. average: the moving average of the weights, empty if
    there is none. random: states of every process' generators (processes, bytes), of the CPU and of CUDA (None
    without). processes: how many trained together. best: the least validation error so far.
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
    """The states of one stage in a folder: written whole or not at all, the newest few kept."""

    def __init__(self, folder: Path, stage: str, keep: int = 2) -> None:
        self.folder, self._stage, self._keep = folder, stage, keep

    def paths(self) -> list[Path]:
        """The saved states, oldest first."""
        return sorted(self.folder.glob(f"state_{self._stage}_*.pt"))

    def save(self, state: TrainingState) -> Path:
        """Writes a state, then removes the oldest ones.

        Raises FileError, with all earlier states in place, where it cannot be written.
        """
        path = self.folder / f"state_{self._stage}_{state.position.step:08d}.pt"
        content = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        content |= {"version": VERSION, "position": dataclasses.asdict(state.position)}
        write_state(path, content)
        for old in self.paths()[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def clean(self) -> None:
        """Removes what a killed run left half-written."""
        remove_abandoned(self.folder, f"state_{self._stage}_*.pt")

    def load(self, recipe: Recipe, processes: int) -> TrainingState:
        """The newest state.

        Raise FileError if there is none or it is damaged, InputError if it is of another recipe or of another number of
        processes.
        """
        paths = self.paths()
        if not paths:
            raise FileError(f"{self.folder} holds no state of the {self._stage} stage to continue from")
        path = paths[-1]
        with reading(path, "a training state", "remove it to continue from an earlier one"):
            content = read_torch(path)
            version = content.pop("version")
            state = TrainingState(**{**content, "position": Position(**content["position"])})
            differences = recipe.differences(state.recipe)
        if version != VERSION:
            raise FileError(f"{path} is a training state of version {version}, this software reads {VERSION}")
        if differences:
            more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
            raise InputError(f"{path} is of another recipe: {differences[0]}{more}; use that one or another folder")
        if state.processes != processes:
            raise InputError(
                f"{path} was made by {state.processes} processes, not {processes}: the batches would differ; "
                f"train with {state.processes}, or start from its last snapshot"
            )
        return state


def write_state(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors and plain values. Raises FileError, with an earlier state in place, where that cannot be done."""
    with atomic_path(path) as temporary:
        try:
            # By an open file: PyTorch would put a path's name into the file.
            with temporary.open("wb") as file:
                torch.save(_plain(content), file)
        except RuntimeError as error:
            # PyTorch's writer tells of a full disk so.
            raise FileError(f"cannot write {path}: the disk may be full; earlier states are still there") from error


def _plain(value: Any) -> Any:
    """The same content in containers and texts of its own, so that the same state has the same bytes.

    A pickle tells whether two equal texts are one object; those of a state that was read are none.
    """
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return sys.intern(value) if type(value) is str else value


def random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """States of this process' generators; those of a CUDA device too."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore_random(random: Tensor, cuda_random: Tensor | None, device: torch.device) -> None:
    """The inverse of `random_states`."""
    torch.set_rng_state(random)
    if cuda_random is not None and device.type == "cuda":
        torch.cuda.set_rng_state(cuda_random, device)
