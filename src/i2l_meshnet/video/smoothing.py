"""Steady motion: the One-Euro filter while frames come in, local polynomials where the whole clip is there.

Both work on points and on rotations: a point's tangent is a difference, a rotation's its rotation vector.
"""

import math
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

SmoothKind = Literal["one-euro", "offline", "off"]


@runtime_checkable
class Space(Protocol):
    """Where values live: how to go from one to another, by tangent vectors (their last axis has length 3 or less)."""

    def difference(self, start: Tensor, end: Tensor) -> Tensor:
        """The tangent at `start` that leads to `end`."""
        ...

    def move(self, start: Tensor, tangent: Tensor) -> Tensor:
        """Where a tangent at `start` leads."""
        ...


class Points:
    """Vectors (..., d); each is filtered by its own speed."""

    def difference(self, start: Float[Tensor, "*b d"], end: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return end - start

    def move(self, start: Float[Tensor, "*b d"], tangent: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return start + tangent


class Rotations:
    """Rotation matrices (..., 3, 3); tangents are rotation vectors, radians, in the axes of `start`."""

    def difference(self, start: Float[Tensor, "*b 3 3"], end: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
        return matrix_to_axis_angle(start.mT @ end)

    def move(self, start: Float[Tensor, "*b 3 3"], tangent: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
        return start @ axis_angle_to_matrix(tangent)


class OneEuro:
    """The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): a low-pass whose cutoff grows with the speed.

    Slow motion is smoothed to `cutoff` Hz; at a speed v (units a second; radians for rotations) the cutoff is
    cutoff + gain · v, so that at a steady speed the filter lags by less than 1 / (2 π gain) units. The speed itself is
    low-passed at `speed_cutoff` Hz.
    """

    def __init__(self, space: Space, cutoff: float, gain: float, speed_cutoff: float = 1.0) -> None:
        self.space, self.cutoff, self.gain, self.speed_cutoff = space, cutoff, gain, speed_cutoff
        self._raw: Tensor | None = None
        self._smooth: Tensor | None = None
        self._speed: Tensor | None = None

    def step(self, value: Tensor, seconds: float) -> Tensor:
        """The filtered value. seconds: since the step before; of no account at the first."""
        if self._raw is None or self._smooth is None or self._speed is None:
            self._raw = self._smooth = value
            self._speed = torch.zeros_like(self.space.difference(value, value))
            return value
        velocity = self.space.difference(self._raw, value) / seconds
        self._speed = self._speed + _share(self.speed_cutoff, seconds) * (velocity - self._speed)
        cutoff = self.cutoff + self.gain * self._speed.norm(dim=-1, keepdim=True)
        tangent = self.space.difference(self._smooth, value)
        self._raw, self._smooth = value, self.space.move(self._smooth, _share(cutoff, seconds) * tangent)
        return self._smooth


def _share(cutoff: Tensor | float, seconds: float) -> Tensor | float:
    """How much of a new value a first-order low-pass of `cutoff` Hz takes up after `seconds`.

    The exact answer of the continuous filter, not the usual t / (t + 1): at 25 frames a second that one lags a third
    more than at 60.
    """
    turned = 2 * math.pi * cutoff * seconds
    return 1 - (-turned).exp() if isinstance(turned, Tensor) else -math.expm1(-turned)


def local_fit(
    times: Float[Tensor, "t"], near: Float[Tensor, "n"], trust: Float[Tensor, "n"], width: float
) -> Float[Tensor, "t n"]:
    """Weights that take values at the times `near` to smooth values at `times` (seconds): rows sum to 1.

    Each row is the value at its time of the parabola that fits best around it, weighted by a Gaussian of standard
    deviation `width` seconds, cut off at three of them, and by `trust` (a Savitzky-Golay filter for any sampling). So
    there is no lag, at the ends neither, and a steady acceleration passes unchanged. Where fewer than three samples
    are near, the fit is their weighted mean.
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


def interpolate_rotations(
    start: Float[Tensor, "*b 3 3"], end: Float[Tensor, "*b 3 3"], steps: Float[Tensor, "t"]
) -> Float[Tensor, "t *b 3 3"]:
    """Rotations between two, along the shortest way, at `steps` from 0 (start) to 1 (end)."""
    space = Rotations()
    way = space.difference(start, end)
    shape = (len(steps), *[1] * way.ndim)
    return space.move(start.expand(len(steps), *start.shape), steps.reshape(shape) * way)
