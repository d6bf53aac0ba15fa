"""Smooth motion: the One-Euro filter while frames come in, local polynomials where the whole clip is known.

Both work on points and on rotations. The difference of two points is a vector, that of two rotations a rotation vector.
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

    Slow motion is smoothed to `cutoff` Hz. At a speed v (units a second; radians for rotations) the cutoff is
    cutoff + gain · v, so that at a steady speed the filter lags by less than 1 / (2 π gain) units. The speed itself is
    low-passed at `speed_cutoff` Hz.
    """

    def __init__(self, cutoff: float, gain: float, speed_cutoff: float = 1.0, rotations: bool = False) -> None:
        """rotations: values are rotation matrices (..., 3, 3), not points (..., d) of three or fewer dimensions."""
        self.cutoff, self.gain, self.speed_cutoff, self.rotations = cutoff, gain, speed_cutoff, rotations
        self._raw: Tensor | None = None
        self._smooth: Tensor | None = None
        self._speed: Tensor | None = None

    def step(self, value: Tensor, seconds: float) -> Tensor:
        """The filtered value. seconds: since the step before; ignored at the first."""
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
    """The share of a new value in the output of a first-order low-pass of `cutoff` Hz after `seconds`.

    Exact for the continuous filter. The usual t / (t + 1) lags a third more at 25 frames a second than at 60.
    """
    turned = 2 * math.pi * cutoff * seconds
    return 1 - (-turned).exp() if isinstance(turned, Tensor) else -math.expm1(-turned)


def local_fit(
    times: Float[Tensor, "t"], near: Float[Tensor, "n"], trust: Float[Tensor, "n"], width: float
) -> Float[Tensor, "t n"]:
    """Weights from values at the times `near` to smooth values at `times` (seconds): rows sum to 1.

    Each row gives the value of a fitted parabola at its time: a Savitzky-Golay filter for any sampling. The fit is
    weighted by `trust` and by a Gaussian of standard deviation `width` seconds, cut off at three of them. So there is
    no lag, not even at the ends, and a steady acceleration passes unchanged. Where fewer than three samples are near,
    the fit is their weighted mean.
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
    """Smooth points by the weights of `local_fit`."""
    return torch.tensordot(weights.to(values.dtype), values, 1)


def fit_rotations(weights: Float[Tensor, "t n"], values: Float[Tensor, "n *d 3 3"]) -> Float[Tensor, "t *d 3 3"]:
    """Smooth rotations by the weights of `local_fit`: the rotation nearest to the weighted sum (their chordal mean)."""
    import roma  # takes two seconds

    mean: Tensor = roma.special_procrustes(fit_points(weights, values))  # pyright: ignore[reportAssignmentType]
    return mean
