import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_clients import client_of
from standing_network import Detector, StandingNetwork
from starlette.testclient import TestClient

from i2l_meshnet.bodies import load_body
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving.jobs import Job


@pytest.fixture(scope="session")
def predictor() -> MeshPredictor:
    body = load_body("anny")
    return MeshPredictor(StandingNetwork(body), body, Detector())


@pytest.fixture
def serve(predictor: MeshPredictor, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Make clients of applications whose files are in `tmp_path`. Arguments: as for `client_of`."""
    with contextlib.ExitStack() as stack:

        def make(work: Callable[[Job], None] | None = None, **arguments: Any) -> TestClient:
            return stack.enter_context(client_of(work, predictor, tmp_path, **arguments))

        yield make


@pytest.fixture(scope="module")
def client(predictor: MeshPredictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an application with the default limits, for all tests of a module."""
    with client_of(None, predictor, tmp_path_factory.mktemp("serving")) as made:
        yield made
