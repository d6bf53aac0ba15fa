"""The network: a pose net, a bridge, a mesh branch and a parameter regressor, composed."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.fitting import ParameterFit
from i2l_meshnet.models.output import LixelOutput, PoseOutput


class MeshNet(nn.Module):
    """Image crop → lixel joints, lixel mesh and body parameters.

    The parts, each a module:

    - `pose_net(image (b,3,h,w)) -> PoseOutput`
    - `pose_to_feature(PoseOutput) -> Tensor`, of whatever shape the two parts below take
    - `mesh_branch(feature) -> (b,v,3)` lixels
    - `parameter_regressor(mesh_joints (b,j,3) lixels, feature) -> BodyParams` with zero translation, or None

    `joint_regressor` (j, v) may come from a licensed file, so it is a buffer that no checkpoint holds. `config` is
    what `assembly.build` made the network from; a network put together by hand has none and cannot be saved.
    `parameter_fit` is no part of the forward pass: it needs the camera (`fitting.camera_params`).
    """

    joint_regressor: Tensor

    def __init__(
        self,
        pose_net: nn.Module,
        pose_to_feature: nn.Module,
        mesh_branch: nn.Module,
        parameter_regressor: nn.Module | None,
        joint_regressor: Float[Tensor, "j v"],
        grid: LixelGrid,
        config: NetworkConfig | None = None,
        parameter_fit: ParameterFit | None = None,
    ) -> None:
        super().__init__()
        self.pose_net = pose_net
        self.pose_to_feature = pose_to_feature
        self.mesh_branch = mesh_branch
        self.parameter_regressor = parameter_regressor
        self.parameter_fit = parameter_fit
        self.register_buffer("joint_regressor", joint_regressor.clone(), persistent=False)
        self.grid = grid
        self.config = config
        self._frozen_parts: tuple[nn.Module, ...] = ()

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> LixelOutput:
        """`image`: RGB in [0, 1], of the grid's crop size."""
        return self.from_pose(self.pose_net(image))

    def from_pose(self, pose: PoseOutput) -> LixelOutput:
        """All that follows the pose net."""
        feature = self.pose_to_feature(pose)
        vertices = self.mesh_branch(feature)
        # Half precision would cost a quarter of a lixel here.
        with torch.autocast(vertices.device.type, enabled=False):
            mesh_joints = self.joint_regressor @ vertices.to(self.joint_regressor.dtype)
        params = None if self.parameter_regressor is None else self.parameter_regressor(mesh_joints, feature)
        return LixelOutput(pose.joints, vertices, mesh_joints, params, pose.keypoints)

    def freeze_lixel_parts(self, batchnorm_drifts: bool = False) -> None:
        """Leaves only the parameter regressor to be trained, as its training stage wants it.

        The other parts then keep eval mode whatever `train()` is told. With `batchnorm_drifts` they follow
        `train()`, and so their BatchNorm statistics go on moving, as in the published code.
        """
        parts = (self.pose_net, self.pose_to_feature, self.mesh_branch)
        for part in parts:
            part.requires_grad_(False)
        self._frozen_parts = () if batchnorm_drifts else parts
        self.train(self.training)

    def train(self, mode: bool = True) -> "MeshNet":
        """Switches between training and evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for part in self._frozen_parts:
            part.eval()
        return self
