"""The losses of I2L-MeshNet. Every term is a mean over all elements, including elements of weight 0."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from i2l_meshnet.data.targets import PointTarget
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.tensors import TensorDataclass

PUBLISHED_HAND_UNIT = 1000.0
"""`joint_unit` of the published hand network, whose camera joints are in millimetres."""


@dataclasses.dataclass(frozen=True)
class LixelWeights:
    """Weights of terms of the lixel stage, by default as published. mesh_joint: weight of both `mesh_joint_` terms."""

    mesh_joint: float = 1.0
    normal: float = 0.1
    edge: float = 1.0


@dataclasses.dataclass(frozen=True)
class LixelTarget(TensorDataclass):
    """Targets of the lixel stage, lixels.

    joint_fit, mesh_fit: joints and vertices of the body fitted to the image. joint_orig: the dataset's own joints.
    """

    joint_fit: PointTarget
    joint_orig: PointTarget
    mesh_fit: PointTarget


@dataclasses.dataclass(frozen=True)
class ParameterTarget(TensorDataclass):
    """Targets of the parameter stage.

    pose: axis-angle vectors of the bones (radians); angles may exceed pi. shape: shape values. weight: 1 if pose and
    shape of the fit are used, else 0. joint_orig, joint_fit: root-relative camera joints, metres.
    """

    pose: Float[Tensor, "*b k 3"]
    shape: Float[Tensor, "*b s"]
    weight: Float[Tensor, "*b"]
    joint_orig: PointTarget
    joint_fit: PointTarget


def lixel_losses(
    output: LixelOutput,
    target: LixelTarget,
    faces: Int[Tensor, "f 3"],
    weights: LixelWeights,
) -> dict[str, Float[Tensor, ""]]:
    """The terms of the lixel stage; their sum is the loss. Without own joints, the `_orig` terms are 0."""
    return {
        "joint_fit": point_loss(output.joints, target.joint_fit),
        "joint_orig": point_loss(output.joints, target.joint_orig),
        "mesh_fit": point_loss(output.vertices, target.mesh_fit),
        "mesh_joint_orig": weights.mesh_joint * point_loss(output.mesh_joints, target.joint_orig),
        "mesh_joint_fit": weights.mesh_joint * point_loss(output.mesh_joints, target.joint_fit),
        "mesh_normal": weights.normal * normal_loss(output.vertices, target.mesh_fit, faces),
        "mesh_edge": weights.edge * edge_loss(output.vertices, target.mesh_fit, faces),
    }


def parameter_losses(
    pose: Float[Tensor, "*b k 3"],
    shape: Float[Tensor, "*b s"],
    joints: Float[Tensor, "*b j 3"],
    target: ParameterTarget,
    joint_unit: float = 1.0,
) -> dict[str, Float[Tensor, ""]]:
    """The terms of the parameter stage; their sum is the loss.

    pose: axis-angle, radians. joints: root-relative, metres. joint_unit: units of the joint terms per metre. The
    published code uses metres for the body and millimetres for the hand (PUBLISHED_HAND_UNIT).
    """
    weight = target.weight[..., None]
    return {
        "pose_param": ((pose - target.pose).abs() * weight[..., None]).mean(),
        "shape_param": ((shape - target.shape).abs() * weight).mean(),
        "joint_orig_cam": joint_unit * point_loss(joints, target.joint_orig),
        "joint_fit_cam": joint_unit * point_loss(joints, target.joint_fit),
    }


def point_loss(points: Float[Tensor, "*b n 3"], target: PointTarget) -> Float[Tensor, ""]:
    """Weighted L1 distance."""
    return ((points - target.points).abs() * target.weight).mean()


def normal_loss(vertices: Float[Tensor, "*b v 3"], target: PointTarget, faces: Int[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """|cosine| between each edge of a predicted face and the normal of the target face.

    The weight of a face is the product of its vertices' weights. A vertex has the minimum weight of its three axes.
    """
    a, b, c = _corners(vertices, faces)
    target_a, target_b, target_c = _corners(target.points, faces)
    weight_a, weight_b, weight_c = _corners(target.weight.amin(-1, keepdim=True), faces)
    normal = _unit(torch.linalg.cross(_unit(target_b - target_a), _unit(target_c - target_a)))
    edges = torch.stack([_unit(b - a), _unit(c - a), _unit(c - b)])
    cosines = (edges * normal).sum(-1, keepdim=True).abs()
    return (cosines * (weight_a * weight_b * weight_c)).mean()


def edge_loss(vertices: Float[Tensor, "*b v 3"], target: PointTarget, faces: Int[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """|difference| between the lengths of predicted and target edges. Every face contributes three edges.

    The weight of an edge is the product of its vertices' weights. A vertex has the minimum weight of its three axes.
    """
    a, b, c = _edge_lengths(vertices, faces)
    target_a, target_b, target_c = _edge_lengths(target.points, faces)
    weight_a, weight_b, weight_c = _corners(target.weight.amin(-1, keepdim=True), faces)
    differences = torch.cat(
        [
            (a - target_a).abs() * (weight_a * weight_b).squeeze(-1),
            (b - target_b).abs() * (weight_a * weight_c).squeeze(-1),
            (c - target_c).abs() * (weight_b * weight_c).squeeze(-1),
        ],
        -1,
    )
    return differences.mean()


def _corners(values: Float[Tensor, "*b v d"], faces: Int[Tensor, "f 3"]) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (values.index_select(-2, faces[:, i]) for i in range(3))
    return first, second, third


def _edge_lengths(points: Float[Tensor, "*b v 3"], faces: Int[Tensor, "f 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths of the edges first-second, first-third and second-third of each face.

    For vertices that coincide, `vector_norm` has gradient 0. A square root would have an infinite gradient, which
    becomes NaN even in masked samples.
    """
    a, b, c = _corners(points, faces)
    first, second, third = (torch.linalg.vector_norm(edge, dim=-1) for edge in (b - a, c - a, c - b))
    return first, second, third


def _unit(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Vectors of length 1. A zero vector stays zero and has gradient 0."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, torch.inf)
