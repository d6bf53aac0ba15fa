import math

import pytest
import roma
import torch
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.rotations import interpolate_rotations
from i2l_meshnet.video.motion import Motion
from i2l_meshnet.video.smoothing import OneEuro, fit_points, fit_rotations, local_fit

TIMES = torch.arange(120) / 30.0


def jitter(values: Tensor) -> float:
    return float((values[2:] - 2 * values[1:-1] + values[:-2]).norm(dim=-1).mean())


def noise(*shape: int, scale: float, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def turning(speed: float, scale: float) -> tuple[Tensor, Tensor]:
    """Rotations about an axis at a steady speed (radians a second), and the same with noise."""
    vectors = torch.zeros(len(TIMES), 4, 3)
    vectors[..., 1] = speed * TIMES[:, None]
    truth = roma.rotvec_to_rotmat(vectors)
    return truth, truth @ roma.rotvec_to_rotmat(noise(len(TIMES), 4, 3, scale=scale))


def angles(one: Tensor, other: Tensor) -> Tensor:
    return roma.rotmat_geodesic_distance(one, other)


def filtered(filter_: OneEuro, values: Tensor) -> Tensor:
    return torch.stack([filter_.step(value, 1 / 30) for value in values])


def test_one_euro_removes_noise() -> None:
    still = torch.tensor([1.0, -2.0, 5.0]).expand(120, 7, 3) + noise(120, 7, 3, scale=0.01)
    found = filtered(OneEuro(1.0, 1.0), still)
    assert found[0].equal(still[0])
    assert jitter(found[10:]) < 0.2 * jitter(still[10:])
    assert (found[30:].mean(0) - still[30:].mean(0)).abs().max() < 0.003


@pytest.mark.parametrize("speed", [0.2, 1.0, 5.0])
def test_one_euros_lag_at_a_steady_speed_is_bounded(speed: float) -> None:
    gain = 3.0
    line = (speed * TIMES)[:, None, None] * torch.tensor([0.6, 0.0, 0.8])
    lag = (filtered(OneEuro(1.0, gain, speed_cutoff=5.0), line) - line).norm(dim=-1)[-1]
    assert lag < 1 / (2 * math.pi * gain)


def test_one_euro_smooths_rotations() -> None:
    truth, noisy = turning(1.0, 0.05)
    found = filtered(OneEuro(1.5, 1.0, rotations=True), noisy)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand_as(found), atol=1e-5, rtol=0)
    assert (torch.linalg.det(found) > 0).all()
    assert angles(found[1:], found[:-1]).std() < 0.5 * angles(noisy[1:], noisy[:-1]).std()
    assert angles(found, truth)[60:].mean() < 1 / (2 * math.pi)


@pytest.mark.parametrize("rate", [10, 25, 30, 120])
def test_one_euro_lags_equally_at_every_frame_rate(rate: int) -> None:
    """The remainder of a step after a time t depends on the cutoff only: exp(-2 pi cutoff t)."""
    low_pass = OneEuro(1.5, 0.0)
    low_pass.step(torch.zeros(1, 1), 0.0)
    for _ in range(round(0.2 * rate)):
        found = low_pass.step(torch.ones(1, 1), 1 / rate)
    assert float(1 - found) == pytest.approx(math.exp(-2 * math.pi * 1.5 * 0.2), abs=1e-5)


def test_the_offline_fit_keeps_parabolas_unchanged() -> None:
    uneven = TIMES + 0.01 * torch.sin(7 * TIMES)
    weights = local_fit(uneven, uneven, torch.ones(120), 0.1)
    torch.testing.assert_close(weights.sum(1), torch.ones(120))
    parabola = torch.stack([2 + uneven - 3 * uneven**2, uneven**2], -1)
    torch.testing.assert_close(fit_points(weights, parabola), parabola, atol=2e-4, rtol=0)


def test_the_offline_fit_removes_noise_without_lag() -> None:
    truth = torch.sin(2 * TIMES)[:, None]
    noisy = truth + noise(120, 1, scale=0.02)
    found = fit_points(local_fit(TIMES, TIMES, torch.ones(120), 0.1), noisy)
    assert jitter(found) < 0.15 * jitter(noisy)
    assert (found - truth).abs().mean() < 0.5 * (noisy - truth).abs().mean()
    # Reversed time gives the same result, so there is no lag.
    backwards = fit_points(local_fit(-TIMES.flip(0), -TIMES.flip(0), torch.ones(120), 0.1), noisy.flip(0)).flip(0)
    torch.testing.assert_close(found, backwards, atol=1e-5, rtol=0)
    truth, noisy = turning(3.0, 0.05)
    found = fit_rotations(local_fit(TIMES, TIMES, torch.ones(120), 0.08), noisy)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand_as(found), atol=1e-5, rtol=0)
    assert angles(found, truth).mean() < 0.6 * angles(noisy, truth).mean()


def test_values_of_low_trust_have_little_weight() -> None:
    trust = torch.ones(120)
    trust[60] = 1e-4
    values = torch.zeros(120, 1)
    values[60] = 1.0
    assert fit_points(local_fit(TIMES, TIMES, trust, 0.1), values).abs().max() < 1e-2
    mean = local_fit(TIMES[:2], TIMES[:2], torch.ones(2), 0.1)  # three values are needed for a parabola
    torch.testing.assert_close(mean.sum(1), torch.ones(2))
    assert (mean >= 0).all()


def test_who_is_larger_than_thought_is_farther_away(toy: Body) -> None:
    ray, vertices = torch.tensor([[0.1, 0.2]]), torch.zeros(1, toy.joint_regressor.shape[1], 3)
    pose = torch.eye(3).expand(1, len(toy.bones), 3, 3)
    motion = Motion(torch.tensor([[4.0]]), ray, vertices, ray, pose, torch.zeros(1, 2))
    found = motion.with_shape(toy, torch.tensor([2.0, 0.0]))  # 18 cm taller
    assert 4.2 < float(found.depth) < 4.8
    torch.testing.assert_close(found.ray, ray)


def test_rotations_are_interpolated_along_the_shortest_arc() -> None:
    start, end = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.2, 0.0], [0.0, 1.2, 0.0]]))
    found = interpolate_rotations(start, end, torch.tensor([0.0, 0.25, 1.0])[:, None])
    expected = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.2, 0.0], [0.0, 0.45, 0.0], [0.0, 1.2, 0.0]]))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
