"""Random changes: the published order of draws, and their ranges."""

import math
import random
from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet.data.augmentation import draw

FIELDS = ("scale", "rotation", "colour")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mirror", [True, False])
def test_draws_are_the_published_ones(seed: int, mirror: bool, goldens: Path) -> None:
    uniform, normal = random.Random(seed).random, np.random.RandomState(seed).standard_normal
    with np.load(goldens / "datasets" / "augment_and_mixing.npz") as archive:
        rows = archive[f"seed{seed}_exclude{0 if mirror else 1}"]
    for scale, degrees, red, green, blue, mirrored in rows:
        change = draw(uniform, normal, mirror)
        assert change.scale == pytest.approx(scale, abs=1e-12)
        assert math.degrees(change.rotation) == pytest.approx(degrees, abs=1e-9)
        assert change.colour == pytest.approx((red, green, blue), abs=1e-12)
        assert change.mirrored == bool(mirrored)


def test_ranges_and_chances() -> None:
    generator = np.random.default_rng(1)
    draws = [draw(generator.random, generator.standard_normal) for _ in range(4000)]
    scale, rotation, colour = (np.array([getattr(change, name) for change in draws]) for name in FIELDS)
    assert (scale.min(), scale.max()) == (0.75, 1.25)
    assert abs(rotation).max() == pytest.approx(math.radians(60))
    assert np.mean(rotation == 0) == pytest.approx(0.4, abs=0.03)
    assert np.mean([change.mirrored for change in draws]) == pytest.approx(0.5, abs=0.03)
    assert colour.min() >= 0.8
    assert colour.max() <= 1.2
