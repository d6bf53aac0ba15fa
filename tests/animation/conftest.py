from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body, BodyParams


@pytest.fixture(scope="session")
def toy() -> Body:
    return load_body("toy")


@pytest.fixture(scope="session")
def vertices() -> Callable[[Body, BodyParams], np.ndarray]:
    """The vertices that a body gives, in glTF's frame."""
    return lambda body, params: body(params).vertices.double().numpy() * CAMERA_TO_GLTF


@pytest.fixture(scope="module", params=["anny", "toy", "smpl", "mano"])
def body(request: pytest.FixtureRequest, body_directory: Path) -> Body:
    return load_body(request.param, body_directory)
