"""Random smooth motion of any body, in front of the camera."""

import torch
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix

FRAMES = 60


def dance(body: Body, frames: int = FRAMES) -> tuple[BodyParams, Tensor]:
    """Bones swing by 20 degrees or so, the body walks, faces the camera and turns about; times in seconds."""
    generator = torch.Generator().manual_seed(0)
    times = torch.linspace(0.5, 3.0, frames, dtype=torch.float64)
    phase = torch.rand(3, len(body.bones), 3, generator=generator) * 6.28
    swing = torch.randn(3, len(body.bones), 3, generator=generator) * 0.3
    waves = torch.stack([torch.sin((k + 1) * times.float()[:, None, None] + phase[k]) * swing[k] for k in range(3)])
    pose = axis_angle_to_matrix(waves.sum(0))
    up = torch.tensor([0.0, 2.5, 0.0])
    turn = axis_angle_to_matrix(times.float()[:, None] * up)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ body.upright
    pose[:, 0] = turn @ facing @ pose[:, 0]
    shape = body.mean_shape + 0.1 * torch.randn(len(body.shape_names), generator=generator)
    place = torch.stack([torch.sin(times), 0.1 * times, 3 + 0.3 * times], -1).float()
    return BodyParams(pose, shape.expand(frames, -1), place), times
