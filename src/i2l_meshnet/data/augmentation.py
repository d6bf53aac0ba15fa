"""Random augmentations of a training sample: scale, rotation, colour, mirroring."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

SCALE_RANGE = 0.25
ROTATION_RANGE = math.radians(30)
ROTATION_LIMIT = 2.0
ROTATION_CHANCE = 0.6
COLOUR_RANGE = 0.2
MIRROR_CHANCE = 0.5


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """scale, rotation (rad): of the box. colour: factors of red, green and blue. mirrored: left and right swapped."""

    scale: float = 1.0
    rotation: float = 0.0
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mirrored: bool = False


NONE = Augmentation()


def draw(uniform: Callable[[], float], normal: Callable[[], float], mirror: bool = True) -> Augmentation:
    """Draw an augmentation. mirror: False for hands of one side only. Then one random number less is drawn.

    uniform, normal: draw from [0, 1) and from the standard normal distribution. They are called in the published order,
    so `random.Random(seed).random` and `numpy.random.RandomState(seed).standard_normal` give the published draws.
    """
    scale = 1 + SCALE_RANGE * min(max(normal(), -1.0), 1.0)
    rotation = 0.0
    if uniform() <= ROTATION_CHANCE:
        rotation = ROTATION_RANGE * min(max(normal(), -ROTATION_LIMIT), ROTATION_LIMIT)
    low, high = 1 - COLOUR_RANGE, 1 + COLOUR_RANGE
    red, green, blue = (low + (high - low) * uniform() for _ in range(3))
    mirrored = mirror and uniform() <= MIRROR_CHANCE
    return Augmentation(float(scale), float(rotation), (red, green, blue), mirrored)


@dataclasses.dataclass(frozen=True)
class RandomAugmentation:
    """The augmentation of a sample by epoch and index. number: index of the dataset in the mixture.

    mirror: see `draw`.
    """

    seed: int = 0
    number: int = 0
    mirror: bool = True

    def __call__(self, epoch: int, index: int) -> Augmentation:
        generator = np.random.default_rng((self.seed, self.number, epoch, index))
        return draw(generator.random, generator.standard_normal, self.mirror)


def no_augmentation(epoch: int, index: int) -> Augmentation:
    """No change."""
    return NONE
