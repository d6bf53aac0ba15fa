import pytest

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body


@pytest.fixture(scope="session")
def toy() -> Body:
    return load_body("toy")
