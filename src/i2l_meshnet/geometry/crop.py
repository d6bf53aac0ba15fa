"""Person crops: boxes, the affine map between image and crop, and the warp itself (SPEC: crops)."""

import dataclasses

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class Crop(TensorDataclass):
    """Where a crop came from.

    affine: maps pixels of the original image to pixels of the crop, a mirrored crop's flip included.
    rotation: in-plane rotation of the box, radians. mirrored: whether the crop shows the mirror image.
    """

    affine: Float[Tensor, "*b 2 3"]
    rotation: Float[Tensor, "*b"]
    mirrored: Bool[Tensor, "*b"]

    def to_crop(self, points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
        """Image pixels to crop pixels."""
        return transform_points(self.affine, points)

    def to_image(self, points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
        """Crop pixels to image pixels."""
        return transform_points(invert_affine(self.affine), points)

    def mirror(self, width: float | int) -> "Crop":
        """The same crop, cut from the mirror image of its picture of `width` pixels instead."""
        across = self.affine[..., :1]
        affine = torch.cat([-across, self.affine[..., 1:2], self.affine[..., 2:] + across * (width - 1)], -1)
        return Crop(affine, self.rotation, ~self.mirrored)


def transform_points(affine: Float[Tensor, "*b 2 3"], points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
    """Applies 2x3 affine maps to points."""
    return points @ affine[..., :2].transpose(-1, -2) + affine[..., None, :, 2]


def invert_affine(affine: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 2 3"]:
    """The inverse of invertible 2x3 affine maps."""
    a, b, c, d = affine[..., :2].flatten(-2).unbind(-1)
    linear = (torch.stack([d, -b, -c, a], -1) / (a * d - b * c)[..., None]).unflatten(-1, (2, 2))
    return torch.cat([linear, -linear @ affine[..., 2:]], -1)


def box_from_points(points: Float[Tensor, "n 2"], valid: Bool[Tensor, "n"], margin: float = 1.2) -> Float[Tensor, "4"]:
    """Box (x, y, width, height) around the valid points, sides x `margin` about its centre, pixels.

    Raises ValueError if no point is valid.
    """
    if not bool(valid.any()):
        raise ValueError("a box needs at least one valid point")
    low, high = points[valid].amin(0), points[valid].amax(0)
    center, size = (low + high) / 2, (high - low) * margin
    return torch.cat([center - size / 2, size])


def prepare_box(
    box: Float[Tensor, "4"], width: int, height: int, crop_size: tuple[int, int] = (256, 256), margin: float = 1.25
) -> Float[Tensor, "4"] | None:
    """Clips a box (x, y, width, height; pixels) to the image, widens it to the crop's aspect and by `margin`.

    Returns None for a box without area inside the image. A box cut at the left or top border keeps its
    full width or height, as in the published code.
    """
    size = torch.tensor([[width, height]], device=box.device)
    prepared, valid = prepare_boxes(box[None], size, crop_size, margin)
    return prepared[0] if bool(valid[0]) else None


def prepare_boxes(
    boxes: Float[Tensor, "n 4"],
    image_sizes: Shaped[Tensor, "n 2"],
    crop_size: tuple[int, int] = (256, 256),
    margin: float = 1.25,
) -> tuple[Float[Tensor, "n 4"], Bool[Tensor, "n"]]:
    """`prepare_box` for many boxes in images of (width, height) `image_sizes`; the mask tells those with area."""
    position, size = boxes.double().split(2, -1)
    start = position.clamp_min(0)
    end = torch.minimum(image_sizes.double() - 1, start + (size - 1).clamp_min(0))
    valid = (size.prod(-1) > 0) & (end >= start).all(-1)
    inside = end - start
    w, h = inside.unbind(-1)
    aspect = crop_size[1] / crop_size[0]
    widened = torch.stack([torch.where(w < aspect * h, h * aspect, w), torch.where(w > aspect * h, w / aspect, h)], -1)
    widened = widened * margin
    return torch.cat([start + inside / 2 - widened / 2, widened], -1).to(boxes.dtype), valid


def make_crop(
    box: Float[Tensor, "*b 4"],
    image_width: Float[Tensor, "*b"] | float,
    crop_size: tuple[int, int] = (256, 256),
    scale: Float[Tensor, "*b"] | float = 1.0,
    rotation: Float[Tensor, "*b"] | float = 0.0,
    mirrored: Bool[Tensor, "*b"] | bool = False,
) -> Crop:
    """The crop of a box (x, y, width, height; pixels) enlarged by `scale` and turned by `rotation` radians.

    The box centre goes to the crop's centre, the ends of its half-height and half-width axes to the
    middle of the crop's bottom and right side. `crop_size` is (height, width). A mirrored crop is cut
    from the mirror image, where column x is column image_width - 1 - x.
    """
    batch = box.shape[:-1]

    def spread(value: Tensor | float | bool, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(value, dtype=dtype, device=box.device).expand(batch)

    scale, rotation = spread(scale, box.dtype), spread(rotation, box.dtype)
    width, mirror = spread(image_width, box.dtype), spread(mirrored, torch.bool)
    center = box[..., :2] + box[..., 2:] / 2
    sign = torch.where(mirror, -1.0, 1.0).to(box.dtype)
    offset = torch.where(mirror, width - 1, torch.zeros_like(width))
    center = torch.stack([sign * center[..., 0] + offset, center[..., 1]], -1)
    target = torch.tensor([crop_size[1], crop_size[0]], dtype=box.dtype, device=box.device)
    zoom = target / (box[..., 2:] * scale[..., None])
    cos, sin = rotation.cos(), rotation.sin()
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    linear = zoom[..., :, None] * turn
    shift = target / 2 - (linear @ center[..., None])[..., 0]
    flip_shift = shift + linear[..., :, 0] * offset[..., None]
    linear = torch.stack([linear[..., 0] * sign[..., None], linear[..., 1]], -1)
    return Crop(torch.cat([linear, flip_shift[..., None]], -1), rotation, mirror)


def unclipped_crop(box: Float[Tensor, "*b 4"], crop_size: tuple[int, int], margin: float = 1.25) -> Crop:
    """The crop of a box that no picture's edge clips: brought to the crop's aspect, widened by `margin`."""
    aspect = crop_size[1] / crop_size[0]
    height = torch.maximum(box[..., 3], box[..., 2] / aspect) * margin
    size = torch.stack([height * aspect, height], -1)
    center = box[..., :2] + box[..., 2:] / 2
    return make_crop(torch.cat([center - size / 2, size], -1), 0.0, crop_size)


def warp_image(
    image: UInt8[np.ndarray, "h w 3"], affine: Float[Tensor, "2 3"], crop_size: tuple[int, int]
) -> UInt8[np.ndarray, "ch cw 3"]:
    """Cuts a crop of (height, width) `crop_size`: bilinear, black outside the image (OpenCV warpAffine)."""
    matrix = affine.double().numpy()
    return cv2.warpAffine(image, matrix, (crop_size[1], crop_size[0]), flags=cv2.INTER_LINEAR)
