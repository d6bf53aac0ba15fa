"""What a network is made of, as plain values: enough to build it again beside its weights."""

import dataclasses
from typing import Any

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid

Option = int | float | str | bool
MOST_VERTICES, LARGEST = 1_000_000, 4096
"""Of a network that is read: its vertices, bones and shape values; any other size."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """A network's description.

    kind: the assembly ("published", "keypoint", "hand"). backbone: its image network. body: name of the body whose mesh
    it predicts. joints: joint names, in output order. vertices, bones, shape_values: counts. grid: what the
    lixels span. regresses_parameters: whether there is a parameter regressor. options: sizes that only this kind
    of assembly knows.
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
    options: dict[str, Option] = dataclasses.field(default_factory=dict)

    @classmethod
    def for_body(cls, body: Body, kind: str, backbone: str, grid: LixelGrid, **options: Option) -> "NetworkConfig":
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
            options=options,
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
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NetworkConfig":
        """The inverse of `to_json`. Raises LookupError, TypeError or ValueError for values that describe no network."""
        grid = dict(values["grid"])
        grid = LixelGrid(**{**grid, "shape": tuple(grid["shape"]), "crop_size": tuple(grid["crop_size"])})
        config = cls(**{**values, "joints": tuple(values["joints"]), "grid": grid})
        sizes = [config.vertices, config.bones, config.shape_values]
        chosen = [value for value in config.options.values() if not isinstance(value, str)]
        texts = [config.kind, config.backbone, config.body, grid.depth_axis, *config.joints, *config.options]
        for most, numbers in ((MOST_VERTICES, sizes), (LARGEST, (*chosen, *grid.shape, *grid.crop_size))):
            if not all(isinstance(number, int | float) and 0 <= number <= most for number in numbers):
                raise ValueError(f"a size of it is no number up to {most}")
        if not all(isinstance(text, str) for text in texts) or len(grid.shape) != 3 or len(grid.crop_size) != 2:
            raise ValueError("a value of it is of the wrong kind")
        return config
