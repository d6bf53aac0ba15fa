"""Pose net and mesh branch of the published network, with ResNets."""

from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.models.backbone import ResNet, ResNetStages
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.output import PoseOutput


class ResNetPoseNet(nn.Module):
    """A ResNet and a lixel head for the joints. Its feature is the early map."""

    def __init__(self, backbone: ResNet, head: LixelHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> PoseOutput:
        """image: RGB in [0, 1], without further normalisation."""
        early, deep = self.backbone(image)
        return PoseOutput(self.head(deep), early)


class ResNetMeshBranch(nn.Module):
    """A ResNet's stages and a lixel head for the vertices."""

    def __init__(self, backbone: ResNetStages, head: LixelHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, feature: Float[Tensor, "b 64 h w"]) -> Float[Tensor, "b v 3"]:
        """Vertices in lixels from the map of pose-to-feature."""
        return self.head(self.backbone(feature))
