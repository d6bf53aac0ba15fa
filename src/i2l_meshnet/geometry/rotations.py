"""Rotations: 6D, matrices and axis-angle vectors (radians).

They are implemented here because importing roma, which is used elsewhere, takes two seconds: it imports PyTorch's
compiler.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL = 1e-8
"""Below this square of a sine or angle, functions use the first terms of their series, which have gradients."""


def sixd_to_matrix(sixd: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Gram-Schmidt of a 6D vector, read as a row-major (3, 2) matrix with columns a1, a2.

    The columns of the result are b1 = a1 / |a1|, b2 = the component of a2 normal to b1, normalised, and b1 x b2
    (Zhou et al., CVPR 2019, in the element order of the published I2L-MeshNet).
    """
    first, second = sixd.unflatten(-1, (3, 2)).unbind(-1)
    first = F.normalize(first, dim=-1)
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def matrix_to_axis_angle(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors with angles up to pi. Gradients are finite at the identity."""
    a, b, c, d, e, f, g, h, i = matrix.flatten(-2).unbind(-1)
    # 4 q qᵀ of the quaternion q = (w, x, y, z). Each row is a multiple of q; the row with the largest diagonal is best.
    w, x, y, z = 1 + a + e + i, 1 + a - e - i, 1 - a + e - i, 1 - a - e + i
    rows = torch.stack(
        [w, h - f, c - g, d - b, h - f, x, b + d, c + g, c - g, b + d, y, f + h, d - b, c + g, f + h, z], -1
    ).unflatten(-1, (4, 4))
    best = torch.stack([w, x, y, z], -1).argmax(-1)[..., None, None].expand(*matrix.shape[:-2], 1, 4)
    quaternion = F.normalize(rows.gather(-2, best)[..., 0, :], dim=-1)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    cosine, axis = quaternion[..., :1], quaternion[..., 1:]
    square = axis.square().sum(-1, keepdim=True)
    small = square < SMALL
    sine = torch.where(small, torch.ones_like(square), square).sqrt()
    scale = torch.where(small, 2 + square / 3, 2 * torch.atan2(sine, cosine) / sine)
    return axis * scale


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues' formula; exact at the zero vector."""
    square = axis_angle.square().sum(-1)[..., None, None]
    small = square < SMALL
    half = torch.where(small, torch.ones_like(square), square).sqrt() / 2
    by_axis = torch.where(small, 1 - square / 6, (2 * half).sin() / (2 * half))
    by_square = torch.where(small, 0.5 - square / 24, (half.sin() / half).square() / 2)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    across = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    along = axis_angle[..., :, None] * axis_angle[..., None, :]
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + by_axis * across + by_square * (along - square * identity)


def interpolate_rotations(
    start: Float[Tensor, "*b 3 3"], end: Float[Tensor, "*b 3 3"], share: Float[Tensor, "*s 1"]
) -> Float[Tensor, "*broadcast 3 3"]:
    """Interpolate along the shortest path; `share` (broadcast) is 0 at `start` and 1 at `end`."""
    return start @ axis_angle_to_matrix(matrix_to_axis_angle(start.mT @ end) * share)


def mirror_rotations(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Mirror rotations at the plane x = 0: y and z of the axis-angle change sign."""
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=matrix.dtype, device=matrix.device)
    return sign[:, None] * matrix * sign
