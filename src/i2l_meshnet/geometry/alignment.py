"""Procrustes alignment of point sets."""

import torch
from jaxtyping import Float
from torch import Tensor


def rigid_motion(
    source: Float[Tensor, "*b n d"], target: Float[Tensor, "*b n d"]
) -> tuple[Float[Tensor, "*b d d"], Float[Tensor, "*b d"]]:
    """Rotation R (no reflection) and translation t that bring R source + t closest to `target` (Kabsch). Any units."""
    mean_source, mean_target = source.mean(-2), target.mean(-2)
    rotation = _best_rotation(source - mean_source[..., None, :], target - mean_target[..., None, :])[0].mT
    return rotation, mean_target - (rotation @ mean_source[..., None])[..., 0]


def similarity_align(source: Float[Tensor, "*b n d"], target: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
    """Align `source` with `target` by the best scale, rotation (no reflection) and translation.

    Umeyama's closed form: scale c = tr(S) / var(source), t = mean(target) - c R mean(source). Any units.
    """
    mean_source, mean_target = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = source - mean_source, target - mean_target
    rotation, stretch = _best_rotation(a, b)
    scale = stretch / a.square().sum((-1, -2)).clamp_min(torch.finfo(a.dtype).tiny)
    return scale[..., None, None] * (a @ rotation) + mean_target


def _best_rotation(
    source: Float[Tensor, "*b n d"], target: Float[Tensor, "*b n d"]
) -> tuple[Float[Tensor, "*b d d"], Float[Tensor, "*b"]]:
    """The rotation that brings the centred rows `source @ rotation` closest to `target`, and tr(S)."""
    u, s, vt = torch.linalg.svd(source.mT @ target)
    flip = torch.ones_like(s)
    flip[..., -1] = torch.linalg.det(u @ vt).sign()
    return (u * flip[..., None, :]) @ vt, (s * flip).sum(-1)
