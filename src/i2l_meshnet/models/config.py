"""What a network is made of, as plain values: enough to build it again beside its weights."""

import dataclasses
from typing import Any

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid

MOST_VERTICES, LARGEST = 1_000_000, 4096
"""Limits for a description that is read: of its vertices, bones and shape values; of any other size."""


@dataclasses.dataclass(frozen=True)
class LiftingSizes:
    """Sizes of a network that lifts keypoints (kind "keypoint" or "hand").

    width: of the features. blocks: residual blocks of the trunk. joint_hidden, joint_channels: of the joint head's
    free part. mesh_rank: length of the mesh head's rows. mesh_hidden, mesh_channels: of its free part. fit: whether
    parameters are fitted to the keypoints (`fitting.ParameterFit`).
    """

    width: int
    blocks: int
    joint_hidden: int
    joint_channels: int
    mesh_rank: int
    mesh_hidden: int
    mesh_channels: int
    fit: bool = False

    def to_json(self) -> dict[str, int]:
        """Plain JSON values; `fit` only if it is set."""
        return {name: value for name, value in vars(self).items() if value is not False}


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """A network's description.

    kind: the assembly ("published", "keypoint", "hand"). backbone: its image network. body: name of the body whose mesh
    it predicts. joints: joint names, in output order. vertices, bones, shape_values: counts. grid: what the
    lixels span. regresses_parameters: whether there is a parameter regressor. sizes: of a network that lifts
    keypoints, else None.
    """

    kind: str
    backbone: str
    body: str
    joints: tuple[str, ...]
    vertices: int
    bones: int
    shape_values: int
    grid: LixelGrid = dataclasses.field(default_factory=LixelGrid)
    regresses_parameters: bool = True
    sizes: LiftingSizes | None = None

    @classmethod
    def for_body(
        cls, body: Body, kind: str, backbone: str, grid: LixelGrid, sizes: LiftingSizes | None = None
    ) -> "NetworkConfig":
        """The description of a network for `body`."""
        return cls(
            kind=kind,
            backbone=backbone,
            body=body.name,
            joints=body.skeleton.joints,
            vertices=body.joint_regressor.shape[1],
            bones=len(body.bones),
            shape_values=len(body.shape_names),
            grid=grid,
            sizes=sizes,
        )

    def check_body(self, body: Body) -> None:
        """Raises InputError where `body` is not the one that the network predicts."""
        wanted = (self.joints, self.vertices, self.bones, self.shape_values)
        found = (body.skeleton.joints, body.joint_regressor.shape[1], len(body.bones), len(body.shape_names))
        if wanted != found:
            raise InputError(
                f"the network predicts the body {self.body!r} ({len(self.joints)} joints, {self.vertices} vertices, "
                f"{self.bones} bones), but was given {body.name!r} ({len(found[0])}, {found[1]}, {found[2]}): "
                f"use the body {self.body!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `sizes` are called "options" there."""
        values = dataclasses.asdict(self)
        del values["sizes"]
        return values | {"options": {} if self.sizes is None else self.sizes.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NetworkConfig":
        """The inverse of `to_json`. Raises LookupError, TypeError or ValueError for values that describe no network."""
        values = dict(values)
        grid, options = dict(values.pop("grid")), values.pop("options")
        grid = LixelGrid(**{**grid, "shape": tuple(grid["shape"]), "crop_size": tuple(grid["crop_size"])})
        sizes = LiftingSizes(**options) if options else None
        config = cls(**{**values, "joints": tuple(values["joints"])}, grid=grid, sizes=sizes)
        counts = [config.vertices, config.bones, config.shape_values]
        others = [*grid.shape, *grid.crop_size, *(sizes.to_json().values() if sizes else ())]
        for most, numbers in ((MOST_VERTICES, counts), (LARGEST, others)):
            if not all(isinstance(number, int) and 0 <= number <= most for number in numbers):
                raise ValueError(f"a size of it is no number up to {most}")
        texts = [config.kind, config.backbone, config.body, grid.depth_axis, *config.joints]
        if not all(isinstance(text, str) for text in texts) or len(grid.shape) != 3 or len(grid.crop_size) != 2:
            raise ValueError("a value of it is of the wrong kind")
        return config
