from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.linear import load_mano


@pytest.fixture(scope="session")
def evaluation_goldens(goldens: Path) -> dict[str, np.ndarray]:
    """Results of the published evaluate() on fake predictions for the tiny datasets (goldens/datasets/README.md)."""
    with np.load(goldens / "datasets" / "evaluation.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def anny() -> AnnyBody:
    body = load_body("anny")
    assert isinstance(body, AnnyBody)
    return body


@pytest.fixture(scope="session")
def smpl(body_directory: Path) -> Body:
    return load_body("smpl", body_directory)


@pytest.fixture(scope="session")
def published_mano(body_directory: Path) -> Body:
    """MANO with the joint regressor of the published network."""
    return load_mano(find_body_file("mano", body_directory), published_regressor=True)
