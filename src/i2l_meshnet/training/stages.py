"""The two training stages behind one interface: which parameters train, the train mode, and the losses."""

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
"""Root depth of meshes without a known root depth, metres."""


class Stage(ABC):
    """One stage, as the training loop uses it."""

    name: str
    mesh_name: str
    """Name of this stage's mesh in the published evaluation."""

    def __init__(self, body: Body) -> None:
        """body: the body of the network."""
        self.body = body

    @abstractmethod
    def prepare(self, network: MeshNet) -> list[nn.Parameter]:
        """Set which parameters need gradients, and return them."""

    @abstractmethod
    def train_mode(self, network: MeshNet) -> None:
        """Set the modules that are trained to train mode and all others to eval mode."""

    @abstractmethod
    def losses(self, output: LixelOutput, target: Target) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss; their sum is minimised."""

    @abstractmethod
    def mesh(self, network: MeshNet, output: LixelOutput, sample: Sample) -> BodyMesh:
        """The mesh of this stage in the camera frame, m. The samples must not be rotated or mirrored."""


class LixelStage(Stage):
    """Trains everything except the parameter regressor."""

    name, mesh_name = "lixel", "lixel mesh"

    def __init__(self, body: Body, weights: LixelWeights | None = None) -> None:
        """weights: by default as published."""
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
    """Trains the parameter regressor on top of a frozen lixel network."""

    name, mesh_name = "param", "param mesh"

    def __init__(self, body: Body, batchnorm_drifts: bool = False, joint_unit: float = 1.0) -> None:
        """Both arguments restore published behaviour.

        batchnorm_drifts: keep updating the BatchNorm statistics of the lixel network. joint_unit: see
        `losses.parameter_losses`.
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
        position = _to_camera(network, output.mesh_joints, sample)[:, root, None]
        mesh = self._root_relative(output)
        return BodyMesh(mesh.vertices + position, mesh.joints + position)

    def _root_relative(self, output: LixelOutput) -> BodyMesh:
        """The posed body with its root joint at the origin, m. Joints are regressed from the mesh."""
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
    """Mean distance of root-relative joints to the true joints (mm), and the weight: 1 with ground truth, else 0.

    The true joints are the dataset's own 3D joints. If a sample has none, they are the fitted body's joints.
    """
    joints = mesh.joints - mesh.joints[:, stage.body.skeleton.root_index, None]
    own = target.camera_joints.weight.sum((1, 2), keepdim=True) > 0
    truth = torch.where(own, target.camera_joints.points, target.fit_camera_joints.points)
    weight = torch.where(own, target.camera_joints.weight, target.fit_camera_joints.weight)[..., 0]
    count = weight.sum(-1)
    error = ((joints - truth).norm(dim=-1) * weight).sum(-1) / count.clamp(min=1)
    return 1000 * error, (count > 0).to(error.dtype)
