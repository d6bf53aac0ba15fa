"""Random smooth motion of any body, in front of the camera."""

import torch
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix

FRAMES = 60


def dance(body: Body, frames: int = FRAMES) -> tuple[BodyParams, Tensor]:
    """Bones swing by about 20 degrees; the body walks and rotates in front of the camera. Times are in seconds."""
    generator = torch.Generator().manual_seed(0)
    times = torch.linspace(0.5, 3.0, frames, dtype=torch.float64)
    phase = torch.rand(3, len(body.bones), 3, generator=generator) * 6.28
    swing = torch.randn(3, len(body.bones), 3, generator=generator) * 0.3
    waves = torch.stack([torch.sin((k + 1) * times.float()[:, None, None] + phase[k]) * swing[k] for k in range(3)])
    pose = axis_angle_to_matrix(waves.sum(0))
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ body.upright
    pose[:, 0] = spin(2.5 * times.float()) @ facing @ pose[:, 0]
    shape = body.mean_shape + 0.1 * torch.randn(len(body.shape_names), generator=generator)
    position = torch.stack([torch.sin(times), 0.1 * times, 3 + 0.3 * times], -1).float()
    return BodyParams(pose, shape.expand(frames, -1), position), times


def spin(angles: Tensor) -> Tensor:
    """Rotations about y by angles in radians."""
    return axis_angle_to_matrix(angles[:, None] * torch.tensor([0.0, 1.0, 0.0]))
