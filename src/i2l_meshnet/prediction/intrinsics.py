"""The intrinsic parameters of an image's camera: given, from EXIF, or the default."""

import dataclasses
from typing import Annotated

import torch
from tyro.conf import arg

from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera

DEFAULT_FIELD_OF_VIEW = 55.0
"""Field of view of an unknown camera along the longer side, degrees: about a 35 mm lens on 35 mm film."""


@dataclasses.dataclass(frozen=True)
class Intrinsics:
    """The known intrinsics of a camera: at most one of the fields, or None for an unknown camera."""

    focal: float | None = None
    """Focal length in pixels; the principal point is the image centre. Default: EXIF, then a 55° field of view."""
    matrix: Annotated[tuple[float, float, float, float] | None, arg(name="intrinsics")] = None
    """Camera matrix as fx fy cx cy, pixels. Pixel centres are integers, so an image has its centre at
    cx = (W-1)/2, cy = (H-1)/2."""
    field_of_view: Annotated[float | None, arg(name="fov")] = None
    """Field of view along the longer side of the image, degrees."""

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.focal, self.matrix, self.field_of_view)) > 1:
            raise InputError("give only one of the focal length, the intrinsics and the field of view")
        lengths = [self.focal] if self.matrix is None else list(self.matrix[:2])
        if any(length is not None and not 0 < length < float("inf") for length in lengths):
            raise InputError("a focal length must be greater than 0 pixels")
        if self.field_of_view is not None and not 0 < self.field_of_view < 180:
            raise InputError(f"a field of view is between 0 and 180 degrees, not {self.field_of_view:g}")

    def camera(self, width: int, height: int, exif_focal: float | None = None) -> tuple[Camera, str]:
        """The camera of an image, and its source: "given", "exif" or "default".

        The principal point is the image's centre, ((width - 1) / 2, (height - 1) / 2), unless `matrix` gives it.
        """
        if self.matrix is not None:
            values = torch.tensor(self.matrix)
            return Camera(values[:2], values[2:]), "given"
        if self.field_of_view is not None:
            return Camera.from_field_of_view(width, height, self.field_of_view), "given"
        focal = exif_focal if self.focal is None else self.focal
        if focal is None:
            return Camera.from_field_of_view(width, height, DEFAULT_FIELD_OF_VIEW), "default"
        center = torch.tensor([(width - 1) / 2, (height - 1) / 2])
        return Camera(torch.tensor([focal, focal]), center), "exif" if self.focal is None else "given"
