from collections.abc import Iterator

import pytest
from tiny_training import slim_networks


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    """Small networks for every test of training."""
    with slim_networks():
        yield
