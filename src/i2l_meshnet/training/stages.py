"""The two stages of training behind one interface: what trains, what is in train mode, and the loss."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.base import Body, BodyMesh
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.data.targets import Target
from i2l_meshnet.geometry.rotations import matrix_to_axis_angle
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.training.losses import LixelTarget, LixelWeights, ParameterTarget, lixel_losses, parameter_losses

UNKNOWN_DEPTH = 5.0
"""Depth at which a mesh is shown whose root's depth is not known, metres."""


class Stage(ABC):
    """One stage. The training loop knows a stage only through this."""

    name: str
    mesh_name: str
    """What the published evaluation calls this stage's mesh."""

    def __init__(self, body: Body) -> None:
        """body: the network's."""
        self.body = body

    @abstractmethod
    def prepare(self, network: MeshNet) -> list[nn.Parameter]:
        """Sets what needs gradients and returns it."""

    @abstractmethod
    def train_mode(self, network: MeshNet) -> None:
        """Puts the modules that are trained in train mode and all others in eval mode."""

    @abstractmethod
    def losses(self, output: LixelOutput, target: Target) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss; their sum is minimised."""

    @abstractmethod
    def mesh(self, network: MeshNet, output: LixelOutput, sample: Sample) -> BodyMesh:
        """The mesh that this stage is about, camera frame (m), for samples that are neither turned nor mirrored."""


class LixelStage(Stage):
    """Pose net, pose-to-feature and mesh branch; the parameter regressor, if any, rests."""

    name, mesh_name = "lixel", "lixel mesh"

    def __init__(self, body: Body, weights: LixelWeights | None = None) -> None:
        """weights: the published ones if None."""
        super().__init__(body)
        self._weights = weights or LixelWeights()

    def prepare(self, network: MeshNet) -> list[nn.Parameter]:
        network.requires_grad_(True)
        if network.parameter_regressor is not None:
            network.parameter_regressor.requires_grad_(False)
        return [parameter for parameter in network.parameters() if parameter.requires_grad]

    def train_mode(self, network: MeshNet) -> None:
        network.train()
        if network.parameter_regressor is not None:
            network.parameter_regressor.eval()

    def losses(self, output: LixelOutput, target: Target) -> dict[str, Float[Tensor, ""]]:
        wanted = LixelTarget(target.fit_joints, target.joints, target.fit_vertices)
        return lixel_losses(output, wanted, self.body.faces, self._weights)

    def mesh(self, network: MeshNet, output: LixelOutput, sample: Sample) -> BodyMesh:
        vertices = _to_camera(network, output.vertices, sample)
        return BodyMesh(vertices, network.joint_regressor @ vertices)


class ParamStage(Stage):
    """The parameter regressor on top of a lixel network that stays as it is."""

    name, mesh_name = "param", "param mesh"

    def __init__(self, body: Body, batchnorm_drifts: bool = False, joint_unit: float = 1.0) -> None:
        """The parity switches: `batchnorm_drifts` leaves the lixel network's BatchNorm statistics moving, as in the
        published code; `joint_unit` is losses.PUBLISHED_HAND_UNIT for the published hand, whose camera joints were
        counted in millimetres.
        """
        super().__init__(body)
        self._drifts, self._unit = batchnorm_drifts, joint_unit

    def prepare(self, network: MeshNet) -> list[nn.Parameter]:
        if network.parameter_regressor is None:
            raise ValueError("a network without parameter regressor has no parameter stage")
        network.freeze_lixel_parts(batchnorm_drifts=self._drifts)
        network.parameter_regressor.requires_grad_(True)
        return list(network.parameter_regressor.parameters())

    def train_mode(self, network: MeshNet) -> None:
        network.train()

    def losses(self, output: LixelOutput, target: Target) -> dict[str, Float[Tensor, ""]]:
        assert output.params is not None
        wanted = ParameterTarget(
            matrix_to_axis_angle(target.params.pose),
            target.params.shape,
            target.params_weight,
            target.camera_joints,
            target.fit_camera_joints,
        )
        joints = self._root_relative(output).joints
        pose = matrix_to_axis_angle(output.params.pose)
        return parameter_losses(pose, output.params.shape, joints, wanted, self._unit)

    def mesh(self, network: MeshNet, output: LixelOutput, sample: Sample) -> BodyMesh:
        root = self.body.skeleton.root_index
        place = _to_camera(network, output.mesh_joints, sample)[:, root, None]
        mesh = self._root_relative(output)
        return BodyMesh(mesh.vertices + place, mesh.joints + place)

    def _root_relative(self, output: LixelOutput) -> BodyMesh:
        """The posed body with its root joint at the origin, m. Joints are those that the network's regressor reads."""
        assert output.params is not None
        vertices = self.body(output.params).vertices
        joints = self.body.joint_regressor @ vertices
        root = joints[:, self.body.skeleton.root_index, None]
        return BodyMesh(vertices - root, joints - root)


def _to_camera(network: MeshNet, lixels: Float[Tensor, "b n 3"], sample: Sample) -> Float[Tensor, "b n 3"]:
    depth = sample.annotation.root_depth.nan_to_num(UNKNOWN_DEPTH)
    return network.grid.to_camera(lixels, sample.crop, sample.annotation.camera, depth)


@torch.no_grad()
def joint_error(stage: Stage, mesh: BodyMesh, target: Target) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Mean distance of the root-relative joints from the truth (mm), and 1 for samples that have a truth, else 0.

    The truth is the data set's own joints, or the fitted body's where it has none in 3D.
    """
    joints = mesh.joints - mesh.joints[:, stage.body.skeleton.root_index, None]
    own = target.camera_joints.weight.sum((1, 2), keepdim=True) > 0
    truth = torch.where(own, target.camera_joints.points, target.fit_camera_joints.points)
    weight = torch.where(own, target.camera_joints.weight, target.fit_camera_joints.weight)[..., 0]
    count = weight.sum(-1)
    error = ((joints - truth).norm(dim=-1) * weight).sum(-1) / count.clamp(min=1)
    return 1000 * error, (count > 0).to(error.dtype)
