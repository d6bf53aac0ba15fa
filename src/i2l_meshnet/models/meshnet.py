"""The network: a pose net, pose-to-feature, a mesh branch and a parameter regressor."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.fitting import ParameterFit
from i2l_meshnet.models.output import LixelOutput, PoseOutput


class MeshNet(nn.Module):
    """Image crop → lixel joints, lixel mesh and body parameters.

    Its parts are modules:

    - `pose_net(image (b,3,h,w)) -> PoseOutput`
    - `pose_to_feature(PoseOutput) -> Tensor`: the feature for the two parts below, of any shape
    - `mesh_branch(feature) -> (b,v,3)` lixels
    - `parameter_regressor(mesh_joints (b,j,3) lixels, feature) -> BodyParams` with zero translation, or None

    `joint_regressor` (j, v) may come from a licensed file, so it is a buffer that no checkpoint contains.
    `parameter_fit` is not part of the forward pass, because it needs the camera (`fitting.camera_params`).
    """

    joint_regressor: Tensor

    def __init__(
        self,
        pose_net: nn.Module,
        pose_to_feature: nn.Module,
        mesh_branch: nn.Module,
        parameter_regressor: nn.Module | None,
        joint_regressor: Float[Tensor, "j v"],
        config: NetworkConfig,
        parameter_fit: ParameterFit | None = None,
    ) -> None:
        super().__init__()
        self.pose_net = pose_net
        self.pose_to_feature = pose_to_feature
        self.mesh_branch = mesh_branch
        self.parameter_regressor = parameter_regressor
        self.parameter_fit = parameter_fit
        self.register_buffer("joint_regressor", joint_regressor.clone(), persistent=False)
        self.config = config
        self.grid = config.grid
        self._frozen_parts: tuple[nn.Module, ...] = ()

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> LixelOutput:
        """`image`: RGB in [0, 1], of the grid's crop size."""
        return self.from_pose(self.pose_net(image))

    def from_pose(self, pose: PoseOutput) -> LixelOutput:
        """Run the parts after the pose net."""
        feature = self.pose_to_feature(pose)
        vertices = self.mesh_branch(feature)
        # Half precision would cost a quarter of a lixel here.
        with torch.autocast(vertices.device.type, enabled=False):
            mesh_joints = self.joint_regressor @ vertices.to(self.joint_regressor.dtype)
        params = None if self.parameter_regressor is None else self.parameter_regressor(mesh_joints, feature)
        return LixelOutput(pose.joints, vertices, mesh_joints, params, pose.keypoints)

    def freeze_lixel_parts(self, batchnorm_drifts: bool = False) -> None:
        """Freeze all parts but the parameter regressor, for its training stage.

        The frozen parts stay in eval mode when the network is set to train mode. With `batchnorm_drifts` they follow
        `train()`, so their BatchNorm statistics keep changing, as in the published code.
        """
        parts = (self.pose_net, self.pose_to_feature, self.mesh_branch)
        for part in parts:
            part.requires_grad_(False)
        self._frozen_parts = () if batchnorm_drifts else parts
        self.train(self.training)

    def train(self, mode: bool = True) -> "MeshNet":
        """Switch between training and evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for part in self._frozen_parts:
            part.eval()
        return self
