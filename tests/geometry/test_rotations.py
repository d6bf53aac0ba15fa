"""Rotations: comparison with the published code (goldens/rotations.npz), and properties."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from i2l_meshnet.geometry.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    mirror_rotations,
    sixd_to_matrix,
)


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, Tensor]:
    with np.load(goldens / "rotations.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def axis_angles(count: int, angle: float, seed: int = 0) -> Tensor:
    axis = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return axis / axis.norm(dim=-1, keepdim=True) * angle


def test_sixd_gives_the_published_matrices(golden: dict[str, Tensor]) -> None:
    # Float32 cancels digits where the two vectors are nearly parallel.
    got = sixd_to_matrix(golden["x6"].double())
    torch.testing.assert_close(got, golden["rotmat"].double(), atol=4e-6, rtol=0)


def test_axis_angles_are_the_published_ones(golden: dict[str, Tensor]) -> None:
    # The published quaternion formula loses digits near pi, where v and -v are the same rotation: compare matrices.
    got = matrix_to_axis_angle(sixd_to_matrix(golden["x6"].double()))
    expected = golden["angle_axis"].double()
    torch.testing.assert_close(axis_angle_to_matrix(got), axis_angle_to_matrix(expected), atol=5e-6, rtol=0)
    away = got.norm(dim=-1) < 3.1
    assert away.sum() > 450
    torch.testing.assert_close(got[away], expected[away], atol=2e-5, rtol=0)


def test_gradients_through_axis_angles_are_the_published_ones(golden: dict[str, Tensor]) -> None:
    sixd = golden["x6"].double().clone().requires_grad_()
    (matrix_to_axis_angle(sixd_to_matrix(sixd)) * golden["grad_w"].double()).sum().backward()
    assert sixd.grad is not None
    assert sixd.grad.isfinite().all()  # The published gradient is NaN at the identity (row 528).
    angle = golden["angle_axis"].double().norm(dim=-1)
    plain = (angle > 0.05) & (angle < 3.0)
    assert plain.sum() > 400
    expected = golden["grad_x6"].double()[plain]
    size = expected.norm(dim=-1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(sixd.grad[plain] / size, expected / size, atol=2e-4, rtol=0)


def test_axis_angles_and_matrices_convert_as_published_and_as_in_opencv(golden: dict[str, Tensor]) -> None:
    published = axis_angle_to_matrix(golden["rodrigues_in"].double())
    torch.testing.assert_close(published.flatten(1), golden["rodrigues_out"].double(), atol=1e-6, rtol=0)
    found = axis_angle_to_matrix(matrix_to_axis_angle(golden["cv2_rodrigues_mat"].double()))
    opencv = axis_angle_to_matrix(golden["cv2_rodrigues_vec"].double())
    torch.testing.assert_close(found, opencv, atol=2e-6, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.5, 2.0, 3.0, 3.14159])
def test_matrix_and_axis_angle_are_inverse(angle: float) -> None:
    vectors = axis_angles(20, angle)
    torch.testing.assert_close(matrix_to_axis_angle(axis_angle_to_matrix(vectors)), vectors, atol=1e-7, rtol=0)


def test_gradients_at_the_identity_are_finite() -> None:
    for function, start in (
        (matrix_to_axis_angle, torch.eye(3, dtype=torch.float64)),
        (axis_angle_to_matrix, torch.zeros(3, dtype=torch.float64)),
    ):
        value = start.clone().requires_grad_()
        function(value).sum().backward()
        assert value.grad is not None
        assert value.grad.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_sixd_always_gives_a_rotation(numbers: list[float]) -> None:
    sixd = torch.tensor(numbers, dtype=torch.float64)
    a, b = sixd.unflatten(-1, (3, 2)).unbind(-1)
    if torch.linalg.cross(a, b, dim=-1).norm() < 1e-3:
        return
    matrix = sixd_to_matrix(sixd)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert torch.linalg.det(matrix) > 0
    torch.testing.assert_close(sixd_to_matrix(matrix[:, :2].flatten()), matrix, atol=1e-9, rtol=0)


def test_a_mirrored_rotation_negates_y_and_z_of_its_vector() -> None:
    vectors = axis_angles(20, 1.3)
    mirrored = matrix_to_axis_angle(mirror_rotations(axis_angle_to_matrix(vectors)))
    torch.testing.assert_close(mirrored, vectors * torch.tensor([1.0, -1, -1]).double(), atol=1e-9, rtol=0)
