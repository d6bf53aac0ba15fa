"""The lixel head: soft-argmax of one 1D heatmap per point and axis, for joints and vertices."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

UNUSED_KEYS = ("conv_x.0.bias", "conv_y.0.bias", "conv_z_2.0.bias")
"""Keys of the published head that do not influence its output: a bias shifts a whole 1D heatmap, which softmax ignores.
Their gradients are zero except for rounding."""


class LixelHead(nn.Module):
    """Deep feature map → lixels (x, y, z) of `points` points.

    Three transposed convolutions with stride 2 enlarge the map eightfold. Its mean over rows gives the x heatmaps (one
    bin per column), its mean over columns the y heatmaps (one bin per row). The features of the `depth_bins` z bins
    are computed from the global mean of the deep map.
    """

    def __init__(self, in_channels: int, points: int, depth_bins: int = 64, channels: int = 256) -> None:
        super().__init__()
        self.channels = channels
        self.depth_bins = depth_bins
        layers: list[nn.Module] = []
        for width in (in_channels, channels, channels):
            layers += [
                nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.deconv = nn.Sequential(*layers)
        # Sequential modules with one layer have the published key names.
        self.conv_x = nn.Sequential(nn.Conv1d(channels, points, 1, bias=False))
        self.conv_y = nn.Sequential(nn.Conv1d(channels, points, 1, bias=False))
        self.conv_z_1 = nn.Sequential(
            nn.Conv1d(in_channels, channels * depth_bins, 1), nn.BatchNorm1d(channels * depth_bins), nn.ReLU()
        )
        self.conv_z_2 = nn.Sequential(nn.Conv1d(channels, points, 1, bias=False))

    def forward(self, deep: Float[Tensor, "b c h w"]) -> Float[Tensor, "b points 3"]:
        """Lixels, from 0 to the number of bins - 1 on each axis."""
        feature_x, feature_y, feature_z = self.features(deep)
        x = linear_soft_argmax(feature_x, _rows(self.conv_x))
        y = linear_soft_argmax(feature_y, _rows(self.conv_y))
        z = linear_soft_argmax(feature_z, _rows(self.conv_z_2))
        return torch.stack([x, y, z], -1)

    def features(
        self, deep: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b d x"], Float[Tensor, "b d y"], Float[Tensor, "b d z"]]:
        """Features of the x, y and z heatmaps, which are linear in them. One column per bin."""
        wide = self.deconv(deep)
        spread = self.conv_z_1(deep.mean((2, 3))[..., None]).view(-1, self.channels, self.depth_bins)
        if wide.is_contiguous(memory_format=torch.channels_last):
            # Means in the memory layout of the map are 30 times faster.
            rows = wide.permute(0, 2, 3, 1)
            return rows.mean(1).mT, rows.mean(2).mT, spread
        return wide.mean(2), wide.mean(3), spread


def _rows(layer: nn.Sequential) -> Float[Tensor, "p d"]:
    """The weight of a 1x1 convolution as a matrix."""
    return cast(nn.Conv1d, layer[0]).weight.squeeze(-1)


def linear_soft_argmax(features: Float[Tensor, "b d n"], weight: Float[Tensor, "p d"]) -> Float[Tensor, "b p"]:
    """Soft-argmax of the 1D heatmaps `weight @ features`, without storing the heatmaps. Exact.

    It is attention with the rows of `weight` as queries, the n columns of `features` as keys and the bin index as
    value. Only the two factors and the result are saved for the backward pass, which recomputes the heatmaps. Always
    float32 or float64, because logits need the precision (see docs/parity.md).
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    features, weight = features.to(dtype), weight.to(dtype)
    with torch.autocast(features.device.type, enabled=False):
        if torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad):
            return _LinearSoftArgmax.apply(features, weight)
        if features.is_cuda:
            return attended_soft_argmax(features, weight)
        return _probabilities(features, weight) @ _index(features)


def attended_soft_argmax(features: Float[Tensor, "b d n"], weight: Float[Tensor, "p d"]) -> Float[Tensor, "b p"]:
    """`linear_soft_argmax` by PyTorch's attention, which is one fused kernel on a GPU and never stores the heatmaps.

    The kernel needs aligned values. Therefore the value of a bin has eight numbers; the first is the index.
    """
    batch, size = len(features), features.shape[-1]
    value = torch.zeros(size, 8, dtype=features.dtype, device=features.device)
    value[:, 0] = _index(features)
    query = weight.expand(batch, 1, *weight.shape)
    key = features.mT.contiguous()[:, None]
    # The logits are the products without scaling.
    attended = F.scaled_dot_product_attention(query, key, value.expand(batch, 1, size, 8), scale=1.0)
    return attended[:, 0, :, 0]


class _LinearSoftArgmax(torch.autograd.Function):
    """Processes one sample at a time, so that its heatmaps fit in the processor's cache."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor) -> Tensor:
        center = torch.stack([_probabilities(sample, weight) @ _index(sample) for sample in features])
        ctx.save_for_backward(features, weight, center)
        return center

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        features, weight, center = ctx.saved_tensors
        grad_features = torch.empty_like(features)
        grad_weight = torch.zeros_like(weight)
        for i, sample in enumerate(features):
            # d center / d logit[n] = p[n] (n - center)
            grad_logits = _probabilities(sample, weight)
            grad_logits *= _index(sample) - center[i][:, None]
            grad_logits *= grad[i][:, None]
            grad_features[i] = weight.T @ grad_logits
            grad_weight.addmm_(grad_logits, sample.T)
        return grad_features, grad_weight


def _probabilities(features: Tensor, weight: Tensor) -> Tensor:
    return (weight @ features).softmax(-1)


def _index(features: Tensor) -> Tensor:
    return torch.arange(features.shape[-1], dtype=features.dtype, device=features.device)
