"""A short training of the toy body, shared by the tests of training."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from i2l_meshnet.models import backbone
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.published import HEADS
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.training.recipe import RunOptions, TrainOptions

TINY = dataclasses.replace(
    RECIPES["tiny"][1],
    backbone="resnet18",
    head="lixel",
    crop=32,
    batch=2,
    pictures=6,
    validation="",
    end_epoch=2,
    decay_epochs=(),
    decay_factor=10.0,
    learning_rate=1e-3,
    augment=True,
)


@contextlib.contextmanager
def slim_networks(widths: tuple[int, ...] = (8, 12, 16, 20), channels: int = 16) -> Iterator[None]:
    """Build published networks with about a hundredth of their weights.

    widths: channels of the four stages of a ResNet. channels: channels of a lixel head.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "_WIDTHS", widths)
        patch.setitem(HEADS, "lixel", functools.partial(LixelHead, channels=channels))
        yield


def tiny_options(folder: Path, recipe: dict[str, Any] | None = None, **run: Any) -> TrainOptions:
    """Options of a run with images in `folder/data` and results in `folder/output`."""
    options = {"data": folder / "data", "out": folder / "output", "workers": 0, "log_every": 1, "tensorboard": False}
    return TrainOptions(dataclasses.replace(TINY, **(recipe or {})), RunOptions(**{**options, **run}))


def newest_state(options: TrainOptions) -> dict[str, Any]:
    """The content of the latest training state."""
    paths = sorted((options.run.out / "model_dump").glob(f"state_{options.recipe.stage}_*.pt"))
    return torch.load(paths[-1], weights_only=True)


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit."""
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]
