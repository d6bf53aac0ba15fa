"""Pinhole cameras. Frame: x right, y down, z forward, metres; pixels (x, y), integers at pixel centres."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class Camera(TensorDataclass):
    """Intrinsics of a pinhole camera: focal lengths and principal point, pixels."""

    focal: Float[Tensor, "*b 2"]
    center: Float[Tensor, "*b 2"]

    def project(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 2"]:
        """Convert camera-frame points (metres, z > 0) to pixels."""
        return points[..., :2] / points[..., 2:] * self.focal[..., None, :] + self.center[..., None, :]

    def backproject(self, pixels: Float[Tensor, "*b n 2"], depth: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n 3"]:
        """Convert pixels and depths along z (metres) to camera-frame points (metres)."""
        xy = (pixels - self.center[..., None, :]) / self.focal[..., None, :] * depth[..., None]
        return torch.cat([xy, depth[..., None]], -1)

    def mirrored(self, width: float | int) -> "Camera":
        """The camera of the mirrored image. Column x of an image of `width` pixels becomes column width - 1 - x."""
        return Camera(self.focal, torch.stack([width - 1 - self.center[..., 0], self.center[..., 1]], -1))

    @staticmethod
    def from_field_of_view(width: int, height: int, degrees: float) -> "Camera":
        """A camera whose longer image side spans `degrees`; the principal point is the image centre."""
        if not 0 < degrees < 180:
            raise ValueError(f"the field of view must be between 0 and 180 degrees, not {degrees}")
        focal = max(width, height) / 2 / math.tan(math.radians(degrees) / 2)
        return Camera(torch.tensor([focal, focal]), torch.tensor([(width - 1) / 2, (height - 1) / 2]))
