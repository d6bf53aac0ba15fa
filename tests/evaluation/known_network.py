"""A network and a body that return given meshes, row by row."""

import itertools

import torch
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.output import LixelOutput


class KnownNetwork:
    """Returns the next lixel meshes for each batch; the parameters' translation is the number of the row."""

    def __init__(self, lixels: Tensor, grid: LixelGrid, with_params: bool = True) -> None:
        self.lixels, self.grid, self.with_params = lixels, grid, with_params
        self.parameter_regressor = self if with_params else None
        self._rows = itertools.cycle(range(len(lixels)))

    def to(self, device: torch.device) -> "KnownNetwork":
        return self

    def __call__(self, image: Tensor) -> LixelOutput:
        assert image.shape[2:] == self.grid.crop_size
        rows = torch.tensor([next(self._rows) for _ in image])
        params = None
        if self.with_params:
            pose = torch.eye(3).expand(len(rows), 1, 3, 3)
            params = BodyParams(pose, torch.zeros(len(rows), 1), rows[:, None].float().expand(-1, 3))
        vertices = self.lixels[rows]
        return LixelOutput(vertices[:, :1], vertices, vertices[:, :1], params)


class KnownBody(Body):
    """A body like `like` whose meshes are the given vertices, rotated by the root's rotation."""

    def __init__(self, vertices: Tensor, like: Body) -> None:
        super().__init__()
        self.name, self.kind, self.skeleton = like.name, like.kind, like.skeleton
        self.register_buffer("joint_regressor", like.joint_regressor)
        self.register_buffer("faces", like.faces)
        self.vertices = vertices

    def forward(self, params: BodyParams) -> BodyMesh:
        found = self.vertices[params.translation[:, 0].long()] @ params.pose[:, 0].mT
        return BodyMesh(found, self.joint_regressor @ found)
