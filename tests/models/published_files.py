"""Small stand-ins for published snapshots with the exact keys and shapes."""

import json
import zlib
from pathlib import Path

import torch
from golden_recipe import GOLDENS
from torch import Tensor


def published_shapes(kind: str) -> dict[str, list[int]]:
    """Key → shape of every tensor in a snapshot of the published "body" or "hand" (ResNet-50)."""
    content = json.loads((GOLDENS / "published_keys.json").read_text())
    return content["both"] | content[kind]


def mark(key: str) -> float:
    """A number derived from a key."""
    return zlib.crc32(key.encode()) % 1000 / 1000


def light_state(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors with the given shapes. Each repeats one number (see `mark`), so memory and file are small."""

    def tensor(key: str, shape: list[int]) -> Tensor:
        integer = key.endswith(("num_batches_tracked", "th_faces"))
        return torch.full((), mark(key), dtype=torch.int64 if integer else torch.float32).expand(shape)

    return {key: tensor(key, shape) for key, shape in shapes.items()}


def write_snapshot(path: Path, state: dict[str, Tensor], epoch: int = 12) -> Path:
    """Write a file like the published training loop."""
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({"epoch": epoch, "network": state, "optimizer": optimizer}, path)
    return path
