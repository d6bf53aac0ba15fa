import pytest
import torch
from stand_in import Scene, TruthNetwork, make_scene, standing

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.prediction.predictor import MeshPredictor


@pytest.fixture(scope="session")
def anny() -> Body:
    return load_body("anny")


@pytest.fixture(scope="session")
def grid() -> LixelGrid:
    """The default network's: crops of 256x192, bins that reach beyond them, depth along the line of sight."""
    return LixelGrid(crop_size=(256, 192), depth_extent=2.4, margin=0.5, depth_axis="crop")


@pytest.fixture(scope="session")
def camera() -> Camera:
    return Camera(torch.tensor([860.0, 860.0]), torch.tensor([449.5, 349.5]))


@pytest.fixture(scope="session")
def scenes(anny: Body, camera: Camera) -> list[Scene]:
    """Three people in one picture, one of them partly behind another, and one person in a second picture."""
    three = [
        standing(anny, (-0.9, 0.1, 4.0), 0.3),
        standing(anny, (0.3, 0.0, 3.2), 0.8),
        standing(anny, (0.1, 0.1, 5.0), -0.5),
    ]
    return [
        make_scene(anny, camera, (700, 900), three),
        make_scene(anny, camera, (700, 900), [standing(anny, (0.4, 0.2, 3.5), 2.4)], first=3),
    ]


@pytest.fixture
def network(scenes: list[Scene], anny: Body, grid: LixelGrid) -> TruthNetwork:
    return TruthNetwork(scenes, anny, grid)


@pytest.fixture
def predictor(network: TruthNetwork, anny: Body) -> MeshPredictor:
    return MeshPredictor(network, anny)
