"""Rotations: 6D, matrices and axis-angle vectors (radians). Built on roma."""

import roma
import torch
from jaxtyping import Float
from torch import Tensor


def sixd_to_matrix(sixd: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Gram-Schmidt of a 6D vector seen as a row-major (3, 2) matrix with columns a1, a2.

    The result's columns are b1 = a1/|a1|, b2 = the part of a2 normal to b1, normalised, and b1 x b2
    (Zhou et al., CVPR 2019, in the element order of the published I2L-MeshNet).
    """
    return roma.special_gramschmidt(sixd.unflatten(-1, (3, 2)))


def matrix_to_sixd(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The first two columns, in the element order that `sixd_to_matrix` reads."""
    return matrix[..., :2].flatten(-2)


def matrix_to_axis_angle(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors of angle <= pi; finite gradients at the identity."""
    return roma.rotmat_to_rotvec(matrix)


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues' formula; exact at the zero vector."""
    return roma.rotvec_to_rotmat(axis_angle)


def mirror_rotations(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The same rotations seen in a mirror across the plane x = 0 (axis-angle y and z change sign)."""
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=matrix.dtype, device=matrix.device)
    return sign[:, None] * matrix * sign
