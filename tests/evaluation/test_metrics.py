"""Metrics whose values the published code does not check."""

import math

import pytest
import torch

from i2l_meshnet.evaluation.metrics import acceleration_error, area_under_curve, correct_share, f_score

POINTS = torch.randn(3, 12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_correct_share_counts_points_within_the_threshold():
    moved = POINTS.clone()
    moved[:, :3, 0] += 0.2
    assert correct_share(moved, POINTS, 0.15).tolist() == [0.75] * 3


def test_area_under_curve_of_equal_errors():
    """Points off by 0.31 of the largest threshold are right for the 21 of 31 thresholds above it."""
    moved = POINTS + torch.tensor([0.31, 0, 0], dtype=torch.float64)
    assert all(math.isclose(value, 21 / 31) for value in area_under_curve(moved, POINTS, 1.0).tolist())


def test_f_score_of_shifted_grids():
    """Points 10 mm apart, moved by 4 mm: each is 4 mm from its own position and 6 mm from the next."""
    line = torch.arange(20.0)[:, None] * torch.tensor([0.01, 0, 0])
    moved = line + torch.tensor([0.004, 0, 0])
    assert f_score(moved, line, 0.0039) == 0
    assert f_score(moved, line, 0.005) == 1
    half = torch.cat([moved[:10], moved[10:] + torch.tensor([0, 1.0, 0])])
    # Half of the points are near some truth, and half of the truth (10 or 11 points) is near some point.
    precision, recall = 0.5, 0.5
    assert math.isclose(f_score(half, line, 0.005), 2 * precision * recall / (precision + recall), rel_tol=1e-6)
    assert f_score(half, line, 0.005) == f_score(line, half, 0.005)
    # All five points are near some truth, and a quarter of the truth is near some point.
    assert math.isclose(f_score(moved[:5], line, 0.005), 2 * 1 * 0.25 / 1.25, rel_tol=1e-6)
    assert f_score(moved[:5], line, 0.005) == f_score(line, moved[:5], 0.005)


def test_constant_motion_has_no_acceleration_error():
    time = torch.arange(6.0, dtype=torch.float64)[:, None, None]
    drift = POINTS[:1] + time * torch.tensor([0.1, -0.2, 0.3])
    assert acceleration_error(drift, POINTS[:1].expand(6, -1, -1)).abs().max() < 1e-12
    falling = POINTS[:1] + 0.5 * 9.81 * (time / 30) ** 2 * torch.tensor([0, 1.0, 0])
    found = acceleration_error(falling, POINTS[:1].expand(6, -1, -1), rate=30.0)
    torch.testing.assert_close(found, torch.full((4,), 9.81, dtype=torch.float64))
    with pytest.raises(ValueError, match="three"):
        acceleration_error(falling[:2], falling[:2])
