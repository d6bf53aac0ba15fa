"""The published formulation of the two optimised parts, as a reference for tests and benchmarks."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import PoseOutput
from i2l_meshnet.models.pose_to_feature import PoseToFeature


class PlainLixelHead(LixelHead):
    """The head with stored 1D heatmaps."""

    def forward(self, deep: Float[Tensor, "b c h w"]) -> Float[Tensor, "b points 3"]:
        feature_x, feature_y, feature_z = self.features(deep)
        heatmaps = self.conv_x(feature_x), self.conv_y(feature_y), self.conv_z_2(feature_z)
        return torch.stack([soft_argmax(heatmap) for heatmap in heatmaps], -1)


class PlainPoseToFeature(PoseToFeature):
    """Pose to feature with Gaussian volumes and a plain convolution."""

    def forward(self, pose: PoseOutput) -> Float[Tensor, "b c h w"]:
        volume = self.volume(pose.joints, *pose.feature.shape[2:])
        return self.conv(torch.cat([pose.feature, volume.flatten(1, 2)], 1))

    def volume(self, joints: Float[Tensor, "b j 3"], height: int, width: int) -> Float[Tensor, "b j z y x"]:
        """The Gaussians of the joints, axes (z, y, x)."""
        like = joints.detach()

        def squares(center: Tensor, bins: int) -> Tensor:
            return (torch.arange(bins, dtype=like.dtype, device=like.device) - center[..., None]) ** 2

        x, y, z = like.unbind(-1)
        distance = squares(z, self.depth_bins)[..., :, None, None] + squares(y, height)[..., None, :, None]
        return torch.exp(-(distance + squares(x, width)[..., None, None, :]) / (2 * self.sigma**2))


def plain_copy(network: MeshNet) -> MeshNet:
    """A copy of a published network with the same weights and with plain heads and pose-to-feature."""
    plain = {LixelHead: PlainLixelHead, PoseToFeature: PlainPoseToFeature}
    network = copy.deepcopy(network)
    modules: list[nn.Module] = [*network.modules()]
    for module in modules:
        module.__class__ = plain.get(type(module), type(module))
    return network
