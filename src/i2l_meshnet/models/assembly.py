"""Building networks from their descriptions. `BUILDERS` has one function for each kind."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.fitting import ParameterFit
from i2l_meshnet.models.hand import HandPoseNet, HandTrunk
from i2l_meshnet.models.keypoint import (
    GlobalRotationRegressor,
    JoinJoints,
    KeypointPoseNet,
    KeypointTrunk,
    VectorLixelHead,
)
from i2l_meshnet.models.mediapipe import LandmarkNet
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.parameters import ParameterRegressor
from i2l_meshnet.models.pose_to_feature import PoseToFeature
from i2l_meshnet.models.published import BACKBONES, HEADS, PublishedMeshBranch, PublishedPoseNet
from i2l_meshnet.models.rtmpose import RTMPose

BODY_DEPTH, HAND_DEPTH = 2.0, 0.3
"""Depth of the published networks' grids, metres."""


def build(config: NetworkConfig, body: Body) -> MeshNet:
    """Build the network that `config` describes, with initial weights, for `body`.

    Raises InputError if the body does not fit the description, or if its kind or backbone is unknown.
    """
    config.check_body(body)
    if config.kind not in BUILDERS:
        raise InputError(f"unknown kind of network {config.kind!r}; known: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[config.kind](config, body)


def published_config(body: Body, backbone: str = "resnet50", head: str = "lixel") -> NetworkConfig:
    """The description of the published network for a whole body or a hand. backbone, head: in `BACKBONES`, `HEADS`."""
    depth = BODY_DEPTH if body.kind == "body" else HAND_DEPTH
    config = NetworkConfig.for_body(body, "published", backbone, LixelGrid(depth_extent=depth))
    return dataclasses.replace(config, head=head)


def build_published(config: NetworkConfig, joint_regressor: Float[Tensor, "j v"]) -> MeshNet:
    """Build the network of Moon & Lee, ECCV 2020, with its initialisation: small normal weights, BatchNorm 1 and 0.

    The ResNets get He's initialisation. The published code always starts them from ImageNet weights
    (`imagenet.load_backbones`). Raises InputError for an unknown backbone
    or head.
    """
    for kind, name, table in (("backbone", config.backbone, BACKBONES), ("head", config.head, HEADS)):
        if name not in table:
            known = ", ".join(table)
            raise InputError(f"no {kind} {name!r}: name the Python file that adds it; known: {known}", argument="code")
    backbone, make_head = BACKBONES[config.backbone], HEADS[config.head]
    joints, depth_bins = len(config.joints), config.grid.shape[0]
    image_net, mesh_stages = backbone.image(), backbone.stages()
    pose_head = make_head(image_net.deep_channels, joints, depth_bins)
    mesh_head = make_head(mesh_stages.deep_channels, config.vertices, depth_bins)
    pose_to_feature = PoseToFeature(joints, depth_bins, sigma=config.sigma)
    regressor = None
    if config.regresses_parameters:
        regressor = ParameterRegressor(joints, config.bones, config.shape_values)
    for part in (pose_head, mesh_head, pose_to_feature, regressor):
        if part is not None:
            part.apply(_initialise)
    return MeshNet(
        PublishedPoseNet(image_net, pose_head),
        pose_to_feature,
        PublishedMeshBranch(mesh_stages, mesh_head),
        regressor,
        joint_regressor,
        config,
    )


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Published initial values. Conv1d keeps PyTorch's initialisation."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.001)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def build_keypoint(config: NetworkConfig, body: Body) -> MeshNet:
    """Build the default network. RTMPose's weights are random until loaded."""
    sizes, joints, bins = config.lifting_sizes(), len(config.joints), config.grid.shape
    trunk = KeypointTrunk(sizes.width, sizes.blocks, config.grid.crop_size)
    joint_head, mesh_head = _lifting_heads(config)
    regressor = None
    if config.regresses_parameters:
        regressor = GlobalRotationRegressor(sizes.width, joints, body.parents, config.shape_values, bins)
    return MeshNet(
        KeypointPoseNet(RTMPose(), trunk, joint_head),
        JoinJoints(sizes.width, joints, bins),
        mesh_head,
        regressor,
        body.joint_regressor,
        config,
        ParameterFit(body) if sizes.fit and isinstance(body, AnnyBody) else None,
    )


def build_hand(config: NetworkConfig, body: Body) -> MeshNet:
    """Build the hand network. The landmark network's weights are random until loaded."""
    sizes, joints, bins = config.lifting_sizes(), len(config.joints), config.grid.shape
    joint_head, mesh_head = _lifting_heads(config)
    return MeshNet(
        HandPoseNet(LandmarkNet(), HandTrunk(sizes.width, sizes.blocks), joint_head),
        JoinJoints(sizes.width, joints, bins),
        mesh_head,
        GlobalRotationRegressor(sizes.width, joints, body.parents, config.shape_values, bins),
        body.joint_regressor,
        config,
    )


def _lifting_heads(config: NetworkConfig) -> tuple[VectorLixelHead, VectorLixelHead]:
    """The heads for joints and for vertices."""
    sizes, joints, bins = config.lifting_sizes(), len(config.joints), config.grid.shape
    return (
        VectorLixelHead(sizes.width, joints, joints, sizes.joint_hidden, sizes.joint_channels, bins),
        VectorLixelHead(sizes.width, config.vertices, sizes.mesh_rank, sizes.mesh_hidden, sizes.mesh_channels, bins),
    )


BUILDERS: dict[str, Callable[[NetworkConfig, Body], MeshNet]] = {
    "published": lambda config, body: build_published(config, body.joint_regressor),
    "keypoint": build_keypoint,
    "hand": build_hand,
}
"""Kind of a network → the function that builds it."""
