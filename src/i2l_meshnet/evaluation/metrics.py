"""Errors of predicted joints and vertices, per sample. Units are those of the input (metres in, metres out)."""

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.geometry.alignment import similarity_align


def root_relative(points: Float[Tensor, "*b n 3"], root: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b n 3"]:
    """Points relative to a root point of their own."""
    return points - root[..., None, :]


def mean_error(predicted: Float[Tensor, "*b n 3"], truth: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b"]:
    """Mean distance: MPJPE of root-relative joints, MPVPE of root-relative vertices."""
    return (predicted - truth).norm(dim=-1).mean(-1)


def aligned_error(predicted: Float[Tensor, "*b n 3"], truth: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b"]:
    """Mean distance after the best scale, rotation and translation: PA-MPJPE, PA-MPVPE."""
    return mean_error(similarity_align(predicted, truth), truth)


def correct_share(
    predicted: Float[Tensor, "*b n 3"], truth: Float[Tensor, "*b n 3"], threshold: float
) -> Float[Tensor, "*b"]:
    """Share of points within `threshold` of the truth (PCK)."""
    return ((predicted - truth).norm(dim=-1) <= threshold).to(predicted.dtype).mean(-1)


def area_under_curve(
    predicted: Float[Tensor, "*b n 3"], truth: Float[Tensor, "*b n 3"], largest: float, steps: int = 31
) -> Float[Tensor, "*b"]:
    """Mean of PCK over `steps` thresholds from 0 to `largest` (AUC)."""
    thresholds = torch.linspace(0, largest, steps, dtype=predicted.dtype, device=predicted.device)
    distance = (predicted - truth).norm(dim=-1)
    return (distance[..., None] <= thresholds).to(predicted.dtype).mean((-1, -2))
