"""The parameter regressor: body parameters from the joints of the lixel mesh."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.geometry.rotations import sixd_to_matrix


class ParameterRegressor(nn.Module):
    """Lixel joints of the mesh → rotation of every bone and shape values. No gradient reaches the joints."""

    def __init__(self, joints: int, bones: int, shape_values: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(joints * 3, 1024),
            nn.BatchNorm1d(1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(inplace=True),
        )
        # Sequential modules with one layer have the published key names.
        self.fc_pose = nn.Sequential(nn.Linear(512, bones * 6))
        self.fc_shape = nn.Sequential(nn.Linear(512, shape_values))

    def forward(self, mesh_joints: Float[Tensor, "b j 3"], feature: Tensor) -> BodyParams:
        """mesh_joints: lixels. feature: not used by this regressor."""
        hidden = self.fc(mesh_joints.detach().flatten(1))
        pose, shape = (layer(hidden) for layer in (self.fc_pose, self.fc_shape))
        # Rotations need float32, also under autocast.
        dtype = torch.promote_types(shape.dtype, torch.float32)
        pose, shape = pose.to(dtype), shape.to(dtype)
        return BodyParams(sixd_to_matrix(pose.unflatten(-1, (-1, 6))), shape, shape.new_zeros(shape.shape[0], 3))
