"""Lixels: coordinates in bins along x, y and z; conversion to and from camera coordinates."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, invert_affine


@dataclasses.dataclass(frozen=True)
class LixelGrid:
    """The grid of a network's 1D heatmaps.

    shape: bins along (z, y, x). crop_size: the network's input (height, width), pixels. depth_extent: depth of the grid
    in metres (2.0 for a body, 0.3 for a hand), centred on the root joint. margin: how far the x and y bins extend
    beyond the crop on each side, as a fraction of the side; 0 in the published network. depth_axis: the axis of depth,
    which defines the network's frame. "camera": the camera's axis (published networks). "crop": the line of sight to
    the crop's centre, for networks that do not know the position of the crop (see `view_rotation`).
    """

    shape: tuple[int, int, int] = (64, 64, 64)
    crop_size: tuple[int, int] = (256, 256)
    depth_extent: float = 2.0
    margin: float = 0.0
    depth_axis: Literal["camera", "crop"] = "camera"

    def encode(self, pixels: Float[Tensor, "*b 2"], depth: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3"]:
        """Convert crop pixels and root-relative depth (metres) to lixels (x, y, z)."""
        step, start = self._bins(pixels)
        return (torch.cat([pixels, depth[..., None]], -1) - start) / step

    def decode(self, lixels: Float[Tensor, "*b 3"]) -> tuple[Float[Tensor, "*b 2"], Float[Tensor, "*b"]]:
        """Convert lixels (x, y, z) to crop pixels and root-relative depth (metres). The inverse of `encode`."""
        step, start = self._bins(lixels)
        values = lixels * step + start
        return values[..., :2], values[..., 2]

    def _bins(self, like: Tensor) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Distance between bins along x, y (crop pixels) and z (metres), and the position of bin 0."""
        (bins_z, bins_y, bins_x), (height, width) = self.shape, self.crop_size
        span = 1 + 2 * self.margin
        step = [span * width / bins_x, span * height / bins_y, self.depth_extent / bins_z]
        start = [-self.margin * width, -self.margin * height, -self.depth_extent / 2]
        return like.new_tensor(step), like.new_tensor(start)

    def view_rotation(self, crop: Crop, camera: Camera) -> Float[Tensor, "*b 3 3"]:
        """Rotation from the network's frame to the camera's frame.

        Depth axis "camera": the identity. Depth axis "crop": a rotation about the camera's axis by the crop's rotation,
        then the smallest rotation from the camera's axis to the crop's centre.
        """
        height, width = self.crop_size
        middle = crop.affine.new_tensor([width / 2, height / 2]).expand(*crop.affine.shape[:-2], 1, 2)
        if self.depth_axis == "camera":
            return torch.eye(3, dtype=middle.dtype, device=middle.device).expand(*middle.shape[:-2], 3, 3)
        ray = camera.backproject(crop.to_image(middle), torch.ones_like(middle[..., 0]))[..., 0, :]
        x, y, z = (ray / ray.norm(dim=-1, keepdim=True)).unbind(-1)
        shared = -x * y / (1 + z)
        rows = [1 - x * x / (1 + z), shared, x, shared, 1 - y * y / (1 + z), y, -x, -y, z]
        towards = torch.stack(rows, -1).unflatten(-1, (3, 3))
        cos, sin = crop.rotation.to(x).cos(), crop.rotation.to(x).sin()
        zero = torch.zeros_like(cos)
        about = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], -1).unflatten(-1, (3, 3))
        return towards @ about

    def to_camera(
        self, lixels: Float[Tensor, "*b n 3"], crop: Crop, camera: Camera, root_depth: Float[Tensor, "*b"]
    ) -> Float[Tensor, "*b n 3"]:
        """Convert lixels to camera-frame points (metres), given the root joint's depth along z (metres).

        With the depth axis "crop", the root is assumed to be in the direction of the crop's centre.
        """
        # The ray (x, y at z = 1) and the depth of a lixel are affine functions of it. Therefore one map replaces
        # `decode`, `Crop.to_image` and `Camera.backproject`, with one pass over the points instead of six.
        step, start = self._bins(lixels)
        to_image = invert_affine(crop.affine)
        ray_of_start = (to_image[..., :2] @ start[:2, None])[..., 0] + to_image[..., 2] - camera.center
        axis = None if self.depth_axis == "camera" else self.view_rotation(crop, camera)[..., 2]
        root_along = root_depth if axis is None else root_depth / axis[..., 2]
        linear = lixels.new_zeros(*crop.affine.shape[:-2], 3, 3)
        linear[..., :2, :2] = to_image[..., :2] * step[:2] / camera.focal[..., None]
        linear[..., 2, 2] = step[2]
        offset = torch.cat([ray_of_start / camera.focal, (start[2] + root_along)[..., None]], -1).to(lixels.dtype)
        points = lixels @ linear.mT + offset[..., None, :]
        rays, along = points[..., :2], points[..., 2:]
        if axis is not None:
            along = along / (rays @ axis[..., :2, None] + axis[..., None, 2:])
        return torch.cat([rays * along, along], -1)

    def from_camera(
        self, points: Float[Tensor, "*b n 3"], crop: Crop, camera: Camera, root_depth: Float[Tensor, "*b"]
    ) -> Float[Tensor, "*b n 3"]:
        """Convert camera-frame points (metres) to lixels. The inverse of `to_camera`."""
        axis = self.view_rotation(crop, camera)[..., 2]
        along = (points @ axis[..., None])[..., 0] - (root_depth / axis[..., 2])[..., None]
        return self.encode(crop.to_crop(camera.project(points)), along)


def soft_argmax(heatmaps: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Expected bin index under the softmax of 1D heatmaps (logits)."""
    index = torch.arange(heatmaps.shape[-1], dtype=heatmaps.dtype, device=heatmaps.device)
    return heatmaps.softmax(-1) @ index


def gaussian(center: Float[Tensor, "*b"], bins: int, sigma: float = 2.5) -> Float[Tensor, "*b {bins}"]:
    """exp(-(i - center)^2 / (2 sigma^2)) over the bins i = 0 .. bins - 1; sigma in lixels."""
    index = torch.arange(bins, dtype=center.dtype, device=center.device)
    return torch.exp(-((index - center[..., None]) ** 2) / (2 * sigma**2))
