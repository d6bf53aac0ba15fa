"""Sampled shapes of the Anny body: people from five years on, with realistic statures."""

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.anny import SHAPE_NAMES, stature
from i2l_meshnet.bodies.base import Body

CHILD = 1 / 3
"""Anny's age of about eleven years; 2/3 is about 25, 1 about 90, 0 a baby."""

STATURE = {"female": (1.625, 0.070), "male": (1.755, 0.075)}
"""Mean and standard deviation of adult statures, metres (NCD-RisC 2016, between Western and world means)."""


class ShapeSampler:
    """Samples shape values of the Anny body from a bank that is drawn once.

    Adults' height values give the statures of `STATURE`. Children have Anny's own statures, with height values around
    the middle.
    """

    def __init__(self, body: Body, seed: int = 0, size: int = 8192, children: float = 0.12) -> None:
        """children: fraction of people between about five years and adulthood."""
        if body.shape_names != SHAPE_NAMES:
            raise ValueError(f"{body.name} does not have Anny's shape values")
        self._bank = _draw(body, size, children, torch.Generator().manual_seed(seed))

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} 6"]:
        """Draw `n` shapes."""
        return self._bank[torch.randint(len(self._bank), (n,), generator=generator)]


def _draw(body: Body, n: int, children: float, generator: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    def normal(mean: float, deviation: float) -> Tensor:
        return (mean + deviation * torch.randn(n, generator=generator)).clamp(0.02, 0.98)

    child = torch.rand(n, generator=generator) < children
    age = torch.where(child, uniform(CHILD * 0.7, 0.62), uniform(0.62, 0.95))
    # Most bodies are clearly female or male.
    female = torch.rand(n, generator=generator) < 0.5
    lean = (torch.randn(n, generator=generator) * 0.1).abs().clamp(max=0.5)
    gender = torch.where(female, 1 - lean, lean)
    shape = torch.stack([gender, age, normal(0.52, 0.16), normal(0.52, 0.17), normal(0.5, 0.15), normal(0.5, 0.17)], 1)
    column = SHAPE_NAMES.index("height")
    low, high = shape.clone(), shape.clone()
    low[:, column], high[:, column] = 0, 1
    # Shape values are linear between two levels, so the stature is linear too, except for rounding.
    shortest = torch.cat([stature(body, part) for part in low.split(512)])
    tallest = torch.cat([stature(body, part) for part in high.split(512)])
    mean = torch.where(gender > 0.5, STATURE["female"][0], STATURE["male"][0])
    deviation = torch.where(gender > 0.5, STATURE["female"][1], STATURE["male"][1])
    wanted = mean + deviation * torch.randn(n, generator=generator)
    value = ((wanted - shortest) / (tallest - shortest)).clamp(0.02, 0.98)
    shape[:, column] = torch.where(age >= 0.62, value, shape[:, column])
    return shape
