"""Networks put together from a description: one builder for each kind, in an explicit table."""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.backbone import RESNET_NAMES, ResNet, ResNetName, ResNetStages
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.hand import build_hand
from i2l_meshnet.models.keypoint import build_keypoint
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.parameters import ParameterRegressor
from i2l_meshnet.models.pose_to_feature import PoseToFeature
from i2l_meshnet.models.published import ResNetMeshBranch, ResNetPoseNet

BODY_DEPTH, HAND_DEPTH = 2.0, 0.3
"""Depth of the published networks' boxes, metres."""


def build(config: NetworkConfig, body: Body) -> MeshNet:
    """The network that `config` describes, freshly initialised, for `body`.

    Raises InputError where the body is not the one described, or the description is of no known network.
    """
    config.check_body(body)
    if config.kind not in BUILDERS:
        raise InputError(f"no network of kind {config.kind!r}; there are: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[config.kind](config, body)


def published_config(body: Body, backbone: str = "resnet50") -> NetworkConfig:
    """The published network for a whole body or a hand."""
    depth = BODY_DEPTH if body.kind == "body" else HAND_DEPTH
    return NetworkConfig.for_body(body, "published", backbone, LixelGrid(depth_extent=depth))


def build_published(config: NetworkConfig, joint_regressor: Float[Tensor, "j v"]) -> MeshNet:
    """The network of Moon & Lee, ECCV 2020, with its initialisation: small normal weights, BatchNorm 1 and 0.

    The ResNets, which the published code always starts from ImageNet weights (`imagenet.load_backbones`), are given
    He's initialisation. Raises InputError for a backbone that is no ResNet.
    """
    if config.backbone not in RESNET_NAMES:
        raise InputError(f"no backbone {config.backbone!r}; there are: {', '.join(RESNET_NAMES)}")
    backbone = cast(ResNetName, config.backbone)
    joints, depth_bins = len(config.joints), config.grid.shape[0]
    image_net, mesh_stages = ResNet(backbone), ResNetStages(backbone)
    pose_head = LixelHead(image_net.deep_channels, joints, depth_bins)
    mesh_head = LixelHead(mesh_stages.deep_channels, config.vertices, depth_bins)
    pose_to_feature = PoseToFeature(joints, depth_bins)
    regressor = None
    if config.regresses_parameters:
        regressor = ParameterRegressor(joints, config.bones, config.shape_values)
    for part in (pose_head, mesh_head, pose_to_feature, regressor):
        if part is not None:
            part.apply(_initialise)
    return MeshNet(
        ResNetPoseNet(image_net, pose_head),
        pose_to_feature,
        ResNetMeshBranch(mesh_stages, mesh_head),
        regressor,
        joint_regressor,
        config.grid,
        config,
    )


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Published values; Conv1d keeps PyTorch's."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.001)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


BUILDERS: dict[str, Callable[[NetworkConfig, Body], MeshNet]] = {
    "published": lambda config, body: build_published(config, body.joint_regressor),
    "keypoint": build_keypoint,
    "hand": build_hand,
}
"""Kind of network → what builds it."""
