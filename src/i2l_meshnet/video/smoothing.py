"""Smooth motion: the One-Euro filter frame by frame, or local polynomials if all frames are known.

Both work on points and on rotations. The difference of two rotations is a rotation vector.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

SmoothKind = Literal["one-euro", "offline", "off"]


class OneEuro:
    """The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): a low-pass whose cutoff grows with the speed.

    At a speed v (units per second; radians per second for rotations) the cutoff is cutoff + gain · v, Hz. At a constant
    speed the filter therefore lags by less than 1 / (2 π gain) units. The speed is low-passed at `speed_cutoff` Hz.
    """

    def __init__(self, cutoff: float, gain: float, speed_cutoff: float = 1.0, rotations: bool = False) -> None:
        """rotations: values are rotation matrices (..., 3, 3) instead of points (..., d)."""
        self.cutoff, self.gain, self.speed_cutoff, self.rotations = cutoff, gain, speed_cutoff, rotations
        self._raw: Tensor | None = None
        self._smooth: Tensor | None = None
        self._speed: Tensor | None = None

    def step(self, value: Tensor, seconds: float) -> Tensor:
        """Filter the next value. seconds: time since the previous step; ignored in the first."""
        if self._raw is None or self._smooth is None or self._speed is None:
            self._raw = self._smooth = value
            self._speed = torch.zeros_like(self._difference(value, value))
            return value
        velocity = self._difference(self._raw, value) / seconds
        self._speed = self._speed + _share(self.speed_cutoff, seconds) * (velocity - self._speed)
        cutoff = self.cutoff + self.gain * self._speed.norm(dim=-1, keepdim=True)
        step = _share(cutoff, seconds) * self._difference(self._smooth, value)
        self._smooth = self._smooth @ axis_angle_to_matrix(step) if self.rotations else self._smooth + step
        self._raw = value
        return self._smooth

    def _difference(self, start: Tensor, end: Tensor) -> Tensor:
        return matrix_to_axis_angle(start.mT @ end) if self.rotations else end - start


def _share(cutoff: Tensor | float, seconds: float) -> Tensor | float:
    """The weight of a new value in a first-order low-pass of `cutoff` Hz after `seconds`.

    This is exact for the continuous filter. The usual t / (t + 1) lags a third more at 25 frames per second than at 60.
    """
    angle = 2 * math.pi * cutoff * seconds
    return 1 - (-angle).exp() if isinstance(angle, Tensor) else -math.expm1(-angle)


def local_fit(
    times: Float[Tensor, "t"], near: Float[Tensor, "n"], trust: Float[Tensor, "n"], width: float
) -> Float[Tensor, "t n"]:
    """Weights that map values at the times `near` to smooth values at `times` (seconds). Rows sum to 1.

    Each row evaluates a parabola, fitted around its time: a Savitzky-Golay filter for any sampling. The fit is weighted
    by `trust` and by a Gaussian with a standard deviation of `width` seconds, cut off at three standard deviations.
    There is no lag, even at the ends, and constant acceleration is preserved. With fewer than three samples, the fit is
    their weighted mean.
    """
    distance = (near[None] - times[:, None]).double() / width
    weight = torch.exp(-0.5 * distance.square()) * (distance.abs() <= 3) * trust.double()
    powers = torch.stack([distance**power for power in range(5)])
    moments = (weight * powers).sum(-1)
    matrix = torch.stack([moments[[0, 1, 2]], moments[[1, 2, 3]], moments[[2, 3, 4]]]).permute(2, 0, 1)
    few = (weight > 0).sum(-1) < 3
    matrix = torch.where(few[:, None, None], torch.eye(3, dtype=matrix.dtype) * moments[0][:, None, None], matrix)
    unit = torch.tensor([1.0, 0.0, 0.0], dtype=matrix.dtype).expand(len(times), 3)
    factors = torch.linalg.solve(matrix, unit)
    factors = torch.where(few[:, None], factors * unit, factors)
    return (weight * torch.einsum("tp,ptn->tn", factors, powers[:3])).to(times.dtype)


def fit_points(weights: Float[Tensor, "t n"], values: Float[Tensor, "n *d"]) -> Float[Tensor, "t *d"]:
    """Smooth points with the weights of `local_fit`."""
    return torch.tensordot(weights.to(values.dtype), values, 1)


def fit_rotations(weights: Float[Tensor, "t n"], values: Float[Tensor, "n *d 3 3"]) -> Float[Tensor, "t *d 3 3"]:
    """Smooth rotations with the weights of `local_fit`: the chordal mean, the rotation nearest to the weighted sum."""
    import roma  # takes two seconds

    mean: Tensor = roma.special_procrustes(fit_points(weights, values))  # pyright: ignore[reportAssignmentType]
    return mean
