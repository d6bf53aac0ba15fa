"""Random changes of a training sample: scale, rotation, colour, mirror (SPEC: crops)."""

import dataclasses
import math
from collections.abc import Callable

SCALE_RANGE = 0.25
ROTATION_RANGE = math.radians(30)
ROTATION_LIMIT = 2.0
ROTATION_CHANCE = 0.6
COLOUR_RANGE = 0.2
MIRROR_CHANCE = 0.5


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """scale: of the box. rotation: of the box, rad. colour: factor of red, green and blue. mirrored: left for right."""

    scale: float = 1.0
    rotation: float = 0.0
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mirrored: bool = False


NONE = Augmentation()


def draw(uniform: Callable[[], float], normal: Callable[[], float], mirror: bool = True) -> Augmentation:
    """Draws an augmentation; `mirror` false (one-sided hands) never mirrors and draws one number less.

    `uniform` gives numbers of [0, 1), `normal` of the standard normal distribution. The numbers are asked for in
    the published code's order, so with `random.Random(seed).random` and
    `numpy.random.RandomState(seed).standard_normal` the draws are the published ones after both generators were
    seeded; training passes the methods of one NumPy generator per sample.
    """
    scale = 1 + SCALE_RANGE * min(max(normal(), -1.0), 1.0)
    rotation = 0.0
    if uniform() <= ROTATION_CHANCE:
        rotation = ROTATION_RANGE * min(max(normal(), -ROTATION_LIMIT), ROTATION_LIMIT)
    low, high = 1 - COLOUR_RANGE, 1 + COLOUR_RANGE
    red, green, blue = (low + (high - low) * uniform() for _ in range(3))
    mirrored = mirror and uniform() <= MIRROR_CHANCE
    return Augmentation(float(scale), float(rotation), (red, green, blue), mirrored)
