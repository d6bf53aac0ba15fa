"""The description of a network as plain values, stored in checkpoints to build the network again."""

import dataclasses
from typing import Any

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid

MAX_COUNT, MAX_SIZE = 1_000_000, 4096
"""Limits for a description that is read: for vertices, bones and shape values; for all other sizes."""


@dataclasses.dataclass(frozen=True)
class LiftingSizes:
    """Sizes of a network that lifts keypoints (kind "keypoint" or "hand").

    width: features. blocks: residual blocks of the trunk. joint_hidden, joint_channels: free part of the joint head.
    mesh_rank: row length of the mesh head. mesh_hidden, mesh_channels: free part of the mesh head. fit: whether
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
    """The description of a network.

    kind: "published", "keypoint" or "hand". backbone: its image network. body: name of the predicted body. joints:
    joint names, in output order. vertices, bones, shape_values: counts. grid: grid of the lixels. regresses_parameters:
    whether it has a parameter regressor. sizes: None for a published network. head, sigma: of a published network: its
    heads (`published.HEADS`), and the standard deviation of the joints' Gaussians, lixels.
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
    head: str = "lixel"
    sigma: float = 2.5

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
        """Raise InputError if `body` does not have the joints and counts of this description."""
        wanted = (self.joints, self.vertices, self.bones, self.shape_values)
        found = (body.skeleton.joints, body.joint_regressor.shape[1], len(body.bones), len(body.shape_names))
        if wanted != found:
            raise InputError(
                f"the network predicts the body {self.body!r} ({len(self.joints)} joints, {self.vertices} vertices, "
                f"{self.bones} bones), not {body.name!r} ({len(found[0])}, {found[1]}, {found[2]}): "
                f"use the body {self.body!r}"
            )

    def lifting_sizes(self) -> LiftingSizes:
        """The sizes. Raises InputError if there are none."""
        if self.sizes is None:
            raise InputError(f"the description of a {self.kind} network has no sizes")
        return self.sizes

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the key of `sizes` is "options". `head` and `sigma` only if they are not the defaults."""
        values = dataclasses.asdict(self)
        del values["sizes"]
        for name in ("head", "sigma"):
            if values[name] == getattr(NetworkConfig, name):
                del values[name]
        return values | {"options": {} if self.sizes is None else self.sizes.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NetworkConfig":
        """The inverse of `to_json`. Raises LookupError, TypeError or ValueError for other values."""
        values = dict(values)
        grid, options = dict(values.pop("grid")), values.pop("options")
        grid = LixelGrid(**{**grid, "shape": tuple(grid["shape"]), "crop_size": tuple(grid["crop_size"])})
        sizes = LiftingSizes(**options) if options else None
        config = cls(**{**values, "joints": tuple(values["joints"])}, grid=grid, sizes=sizes)
        counts = [config.vertices, config.bones, config.shape_values]
        others = [*grid.shape, *grid.crop_size, *(sizes.to_json().values() if sizes else ())]
        for limit, numbers in ((MAX_COUNT, counts), (MAX_SIZE, others)):
            if not all(isinstance(number, int) and 0 <= number <= limit for number in numbers):
                raise ValueError(f"a size in it is not an integer from 0 to {limit}")
        if type(config.sigma) not in (int, float) or not 0 < config.sigma <= MAX_SIZE:
            raise ValueError("its sigma is not a positive number")
        texts = [config.kind, config.backbone, config.head, config.body, grid.depth_axis, *config.joints]
        if not all(isinstance(text, str) for text in texts) or len(grid.shape) != 3 or len(grid.crop_size) != 2:
            raise ValueError("a value in it has the wrong type")
        return config
