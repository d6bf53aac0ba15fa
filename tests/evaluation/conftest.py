from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.linear import load_mano


@pytest.fixture(scope="session")
def evaluation_goldens(goldens: Path) -> dict[str, np.ndarray]:
    """What the published evaluate() makes of fake predictions for the tiny data sets (goldens/datasets/README.md)."""
    with np.load(goldens / "datasets" / "evaluation.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def smpl(body_directory: Path) -> Body:
    return load_body("smpl", body_directory)


@pytest.fixture(scope="session")
def published_mano(body_directory: Path) -> Body:
    """With the published network's joint regressor."""
    return load_mano(find_body_file("mano", body_directory), published_regressor=True)
