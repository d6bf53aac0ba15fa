"""Procrustes alignment of point sets."""

import torch
from jaxtyping import Float
from torch import Tensor


def similarity_align(source: Float[Tensor, "*b n d"], target: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
    """`source` moved onto `target` by the best scale, rotation (no reflection) and translation.

    Umeyama's closed form: scale c = tr(S) / var(source), t = mean(target) - c R mean(source). Any units.
    """
    mean_source, mean_target = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = source - mean_source, target - mean_target
    u, s, vt = torch.linalg.svd(a.transpose(-1, -2) @ b)
    sign = torch.linalg.det(u @ vt).sign()
    flip = torch.ones_like(s)
    flip[..., -1] = sign
    rotation = (u * flip[..., None, :]) @ vt
    scale = (s * flip).sum(-1) / a.square().sum((-1, -2)).clamp_min(torch.finfo(a.dtype).tiny)
    return scale[..., None, None] * (a @ rotation) + mean_target
