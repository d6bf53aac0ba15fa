"""Errors of predicted joints and vertices per sample, in the unit of the input."""

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.geometry.alignment import similarity_align


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


def f_score(
    predicted: Float[Tensor, "*b n 3"], truth: Float[Tensor, "*b m 3"], threshold: float
) -> Float[Tensor, "*b"]:
    """Harmonic mean of precision and recall: the shares of points nearer than `threshold` to the other set (F@t).

    Uses the nearest point, not the corresponding point (Knapitsch et al., 2017; FreiHAND's benchmark). 0 if no point is
    near.
    """
    distance = torch.cdist(predicted, truth, compute_mode="donot_use_mm_for_euclid_dist")
    precision = (distance.amin(-1) < threshold).to(predicted.dtype).mean(-1)
    recall = (distance.amin(-2) < threshold).to(predicted.dtype).mean(-1)
    return 2 * precision * recall / (precision + recall).clamp_min(torch.finfo(predicted.dtype).tiny)


def acceleration_error(
    predicted: Float[Tensor, "*b t n 3"], truth: Float[Tensor, "*b t n 3"], rate: float = 1.0
) -> Float[Tensor, "*b t-2"]:
    """Mean distance between the accelerations of points, for every frame except the first and last.

    Accelerations are second differences times `rate` (frames per second) squared. With rate 1, the unit is metres per
    squared frame. Raise ValueError for fewer than three frames.
    """
    if predicted.shape[-3] < 3:
        raise ValueError(f"an acceleration needs three frames, not {predicted.shape[-3]}")
    difference = predicted - truth
    change = difference[..., 2:, :, :] - 2 * difference[..., 1:-1, :, :] + difference[..., :-2, :, :]
    return change.norm(dim=-1).mean(-1) * rate**2
