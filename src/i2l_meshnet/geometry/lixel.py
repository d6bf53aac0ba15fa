"""Lixels: coordinates on a grid of 64 bins along each of x, y and z, and how they are read and written."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop


@dataclasses.dataclass(frozen=True)
class LixelGrid:
    """The grid that a network's 1D heatmaps span.

    shape: bins along (z, y, x). crop_size: the network's input (height, width), pixels. depth_extent:
    depth of the box in metres (2.0 for a body, 0.3 for a hand), centred on the root joint. margin: the part of
    the crop's side by which the x and y bins reach beyond the crop at each end; 0 in the published network.
    """

    shape: tuple[int, int, int] = (64, 64, 64)
    crop_size: tuple[int, int] = (256, 256)
    depth_extent: float = 2.0
    margin: float = 0.0

    def encode(self, pixels: Float[Tensor, "*b 2"], depth: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3"]:
        """Crop pixels and root-relative depth (metres) to lixels (x, y, z)."""
        bins_z, bins_y, bins_x = self.shape
        span = 1 + 2 * self.margin
        x = (pixels[..., 0] / self.crop_size[1] + self.margin) / span * bins_x
        y = (pixels[..., 1] / self.crop_size[0] + self.margin) / span * bins_y
        z = (depth / (self.depth_extent / 2) + 1) / 2 * bins_z
        return torch.stack([x, y, z], -1)

    def decode(self, lixels: Float[Tensor, "*b 3"]) -> tuple[Float[Tensor, "*b 2"], Float[Tensor, "*b"]]:
        """Lixels (x, y, z) to crop pixels and root-relative depth (metres). The inverse of `encode`."""
        bins_z, bins_y, bins_x = self.shape
        span = 1 + 2 * self.margin
        x = (lixels[..., 0] / bins_x * span - self.margin) * self.crop_size[1]
        y = (lixels[..., 1] / bins_y * span - self.margin) * self.crop_size[0]
        z = (lixels[..., 2] / bins_z * 2 - 1) * (self.depth_extent / 2)
        return torch.stack([x, y], -1), z

    def to_camera(
        self, lixels: Float[Tensor, "*b n 3"], crop: Crop, camera: Camera, root_depth: Float[Tensor, "*b"]
    ) -> Float[Tensor, "*b n 3"]:
        """Lixels to camera-frame points (metres), given the root joint's depth (metres). The one decoder."""
        pixels, depth = self.decode(lixels)
        return camera.backproject(crop.to_image(pixels), depth + root_depth[..., None])

    def from_camera(
        self, points: Float[Tensor, "*b n 3"], crop: Crop, camera: Camera, root_depth: Float[Tensor, "*b"]
    ) -> Float[Tensor, "*b n 3"]:
        """Camera-frame points (metres) to lixels. The inverse of `to_camera`."""
        return self.encode(crop.to_crop(camera.project(points)), points[..., 2] - root_depth[..., None])


def soft_argmax(heatmaps: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Expected bin index under the softmax of 1D heatmaps (logits)."""
    index = torch.arange(heatmaps.shape[-1], dtype=heatmaps.dtype, device=heatmaps.device)
    return heatmaps.softmax(-1) @ index


def gaussian(center: Float[Tensor, "*b"], bins: int, sigma: float = 2.5) -> Float[Tensor, "*b {bins}"]:
    """exp(-(i - center)^2 / (2 sigma^2)) over the bins i = 0 .. bins - 1; sigma in lixels."""
    index = torch.arange(bins, dtype=center.dtype, device=center.device)
    return torch.exp(-((index - center[..., None]) ** 2) / (2 * sigma**2))
