"""The reported deviation of the meshes of two networks."""

import dataclasses

import numpy as np
import pytest
import torch

from i2l_meshnet.bodies import load_body
from i2l_meshnet.exporting.deviation import LARGEST_VIEW, deviation
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.prediction.images import Photo
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.predictor import MeshPredictor

SIDE = 512
BODY = load_body("toy")
BIN = LixelGrid().crop_size[1] / LixelGrid().shape[2]
"""Width of a bin, crop pixels."""


@dataclasses.dataclass
class Shrunk:
    """A stand-in network: everybody is upright, of `size` times the height of the crop, `shift` bins to the side."""

    size: float
    shift: float = 0.0
    grid: LixelGrid = dataclasses.field(default_factory=LixelGrid)
    parameter_fit: None = None

    def __call__(self, image: torch.Tensor) -> LixelOutput:
        rest = BODY(BODY.rest_params())
        middle = (rest.vertices.amin(0) + rest.vertices.amax(0)) / 2
        scale = self.size * self.grid.shape[1] / (rest.vertices.amax(0) - rest.vertices.amin(0))[1]

        def lixels(points: torch.Tensor) -> torch.Tensor:
            moved = (points - middle) * scale + torch.tensor([self.grid.shape[2] / 2 + self.shift, 32.0, 32.0])
            return moved.expand(len(image), -1, 3)

        return LixelOutput(lixels(rest.joints), lixels(rest.vertices), lixels(rest.joints))


@pytest.mark.parametrize(("size", "clamped"), [(0.8, False), (1e-4, True)])
def test_a_mesh_that_nobody_trained_is_compared_within_reach(size: float, clamped: bool) -> None:
    expected, found = (MeshPredictor(Shrunk(size, shift), BODY) for shift in (0.0, 0.01))
    subject = expected.prepare(Photo(np.zeros((SIDE, SIDE, 3), np.uint8)), "a.jpg", intrinsics=Intrinsics(focal=500.0))
    (person,) = expected.predict([subject])[0]
    pixels = float(LixelGrid().crop_size[0] / person.crop.affine[0, 0])
    reach = LARGEST_VIEW * LixelGrid().depth_extent * 500 / pixels
    assert (person.root_depth > 10 * reach) == clamped
    assert (person.root_depth < reach) != clamped
    depth = reach if clamped else person.root_depth
    moved = 1000 * 0.01 * BIN / float(person.crop.affine[0, 0]) / 500 * depth
    difference = deviation(expected, found, [subject])
    assert difference.people == 1
    assert difference.mean == pytest.approx(moved, rel=0.1)
    assert difference.mesh < 40
