"""Errors of joints: what moves them and what does not."""

import math

import torch

from i2l_meshnet.evaluation.metrics import aligned_error, area_under_curve, correct_share, mean_error, root_relative
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix

POINTS = torch.randn(3, 12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_aligned_error_ignores_place_size_and_turn():
    turn = axis_angle_to_matrix(torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64))
    moved = 2.5 * POINTS @ turn.T + torch.tensor([1.0, -2.0, 3.0])
    torch.testing.assert_close(aligned_error(moved, POINTS), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


def test_aligned_error_sees_a_reflection():
    assert (aligned_error(POINTS * torch.tensor([-1.0, 1, 1]), POINTS) > 0.3).all()


def test_mean_error_of_a_shift_is_its_length():
    shift = torch.tensor([0.03, 0.0, 0.04], dtype=torch.float64)
    torch.testing.assert_close(mean_error(POINTS + shift, POINTS), torch.full((3,), 0.05, dtype=torch.float64))


def test_root_relative_puts_the_root_at_the_origin():
    rooted = root_relative(POINTS, POINTS[:, 4])
    assert rooted[:, 4].abs().max() == 0
    torch.testing.assert_close(rooted[:, 1] - rooted[:, 2], POINTS[:, 1] - POINTS[:, 2])


def test_correct_share_counts_points_within_the_threshold():
    moved = POINTS.clone()
    moved[:, :3, 0] += 0.2
    assert correct_share(moved, POINTS, 0.15).tolist() == [0.75] * 3


def test_area_under_curve_of_equal_errors():
    """Points off by 0.31 of the largest threshold are right for the 21 of 31 thresholds above it."""
    moved = POINTS + torch.tensor([0.31, 0, 0], dtype=torch.float64)
    assert all(math.isclose(value, 21 / 31) for value in area_under_curve(moved, POINTS, 1.0).tolist())
