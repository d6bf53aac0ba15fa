"""Crops of people: boxes, the affine map from image to crop, and the warp."""

import dataclasses

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class Crop(TensorDataclass):
    """The position of a crop in its image.

    affine: map from image pixels to crop pixels, including the flip of a mirrored crop. rotation: in-plane rotation of
    the box, radians. mirrored: whether the crop shows the mirror image.
    """

    affine: Float[Tensor, "*b 2 3"]
    rotation: Float[Tensor, "*b"]
    mirrored: Bool[Tensor, "*b"]

    @staticmethod
    def around(
        box: Float[Tensor, "*b 4"],
        size: tuple[int, int],
        *,
        margin: Float[Tensor, "*b"] | float = 1.25,
        rotation: Float[Tensor, "*b"] | float = 0.0,
        mirrored: Bool[Tensor, "*b"] | bool = False,
        clip_to: tuple[float | int, float | int] | None = None,
        stretch: bool = False,
    ) -> "Crop":
        """The crop of (height, width) `size` around a box (x, y, width, height; pixels).

        The box is widened to the aspect of the crop and enlarged by `margin`. The centre of the box becomes the centre
        of the crop, and the edges of the box become the edges of the crop.

        rotation: rotation of the box about its centre, radians; in the mirror image if `mirrored`. mirrored: flip the
        crop. clip_to: (width, height) of the image; clips the box first, by the published rule (`published_boxes`).
        stretch: without `clip_to`, keep the aspect of the box and stretch its content to the crop, as the published
        code does. Raises ValueError for a box without area, or without area inside the image.
        """
        if clip_to is None:
            valid = (box[..., 2:] > 0).all(-1)
            box = enlarged_boxes(box, margin, None if stretch else size)
        else:
            box, valid = published_boxes(box, torch.tensor(clip_to, device=box.device), size, margin)
        if not bool(valid.all()):
            raise ValueError("a box has no area inside the image")

        def spread(value: Tensor | float | bool, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(value, dtype=dtype, device=box.device).expand(box.shape[:-1])

        rotation, mirror = spread(rotation, box.dtype), spread(mirrored, torch.bool)
        target = box.new_tensor([size[1], size[0]])
        cos, sin = rotation.cos(), rotation.sin()
        rotate_back = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
        linear = (target / box[..., 2:])[..., None] * rotate_back
        sign = torch.where(mirror, -1.0, 1.0).to(box.dtype)
        linear = torch.stack([linear[..., 0] * sign[..., None], linear[..., 1]], -1)
        center = box[..., :2] + box[..., 2:] / 2
        shift = target / 2 - (linear @ center[..., None])[..., 0]
        return Crop(torch.cat([linear, shift[..., None]], -1), rotation, mirror)

    def to_crop(self, points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
        """Convert image pixels to crop pixels."""
        return transform_points(self.affine, points)

    def to_image(self, points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
        """Convert crop pixels to image pixels."""
        return transform_points(invert_affine(self.affine), points)

    def mirror(self, width: float | int) -> "Crop":
        """The same crop of the mirrored image. width: width of the image in pixels."""
        across = self.affine[..., :1]
        affine = torch.cat([-across, self.affine[..., 1:2], self.affine[..., 2:] + across * (width - 1)], -1)
        return Crop(affine, self.rotation, ~self.mirrored)


def transform_points(affine: Float[Tensor, "*b 2 3"], points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
    """Apply 2x3 affine maps to points."""
    return points @ affine[..., :2].transpose(-1, -2) + affine[..., None, :, 2]


def invert_affine(affine: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 2 3"]:
    """The inverse of 2x3 affine maps."""
    a, b, c, d = affine[..., :2].flatten(-2).unbind(-1)
    linear = (torch.stack([d, -b, -c, a], -1) / (a * d - b * c)[..., None]).unflatten(-1, (2, 2))
    return torch.cat([linear, -linear @ affine[..., 2:]], -1)


def box_from_points(points: Float[Tensor, "n 2"], valid: Bool[Tensor, "n"], margin: float = 1.2) -> Float[Tensor, "4"]:
    """Box (x, y, width, height; pixels) around the valid points, enlarged by `margin` about its centre.

    Raises ValueError if no point is valid.
    """
    if not bool(valid.any()):
        raise ValueError("a box needs at least one valid point")
    low, high = points[valid].amin(0), points[valid].amax(0)
    center, size = (low + high) / 2, (high - low) * margin
    return torch.cat([center - size / 2, size])


def published_boxes(
    boxes: Float[Tensor, "*b 4"],
    image_sizes: Shaped[Tensor, "*#b 2"],
    crop_size: tuple[int, int] = (256, 256),
    margin: Float[Tensor, "*b"] | float = 1.25,
) -> tuple[Float[Tensor, "*b 4"], Bool[Tensor, "*b"]]:
    """Prepare boxes by the published rule. Returns the boxes, and which boxes have an area inside the image.

    boxes: (x, y, width, height). image_sizes: (width, height). crop_size: (height, width). All in pixels.

    A box covers corner to corner + size - 1. It is clipped to the image, widened to the aspect of `crop_size` and
    enlarged by `margin`. As in the published code, a box that starts left of or above the image is moved into it and
    keeps its width or height.
    """
    position, size = boxes.double().split(2, -1)
    start = position.clamp_min(0)
    end = torch.minimum(image_sizes.double() - 1, start + (size - 1).clamp_min(0))
    valid = (size.prod(-1) > 0) & (end >= start).all(-1)
    clipped = torch.cat([start, end - start], -1)
    return enlarged_boxes(clipped, margin, crop_size).to(boxes.dtype), valid


def enlarged_boxes(
    boxes: Float[Tensor, "*b 4"], margin: Float[Tensor, "*b"] | float, crop_size: tuple[int, int] | None = None
) -> Float[Tensor, "*b 4"]:
    """Boxes (x, y, width, height), enlarged by `margin` about their centres.

    crop_size: (height, width). If given, boxes are first widened to its aspect.
    """
    width, height = boxes[..., 2:].unbind(-1)
    if crop_size is not None:
        aspect = crop_size[1] / crop_size[0]
        width, height = torch.maximum(width, height * aspect), torch.maximum(height, width / aspect)
    scale = torch.as_tensor(margin, dtype=boxes.dtype, device=boxes.device)
    sides = torch.stack([width, height], -1) * scale[..., None]
    return torch.cat([boxes[..., :2] + boxes[..., 2:] / 2 - sides / 2, sides], -1)


def warp_image(
    image: UInt8[np.ndarray, "h w 3"], affine: Float[Tensor, "2 3"], crop_size: tuple[int, int]
) -> UInt8[np.ndarray, "ch cw 3"]:
    """Cut a crop of size (height, width): bilinear, black outside the image (OpenCV warpAffine)."""
    matrix = affine.double().numpy()
    return cv2.warpAffine(image, matrix, (crop_size[1], crop_size[0]), flags=cv2.INTER_LINEAR)
