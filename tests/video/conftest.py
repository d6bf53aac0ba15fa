from collections.abc import Callable
from pathlib import Path

import pytest
from filmed import Stage

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.prediction import predict_files
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.video import pipeline


@pytest.fixture(scope="session")
def toy() -> Body:
    return load_body("toy")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stage], Stage]:
    """Make a stage the predictor of the `predict` command, which then keeps its work every 8 frames."""

    def use(stage: Stage) -> Stage:
        monkeypatch.setattr(MeshPredictor, "load", lambda *arguments: stage)
        monkeypatch.setattr(predict_files.HandPredictor, "load", lambda *arguments, **more: None)
        monkeypatch.setattr(predict_files.assets, "find", lambda name: Path("detector"))
        monkeypatch.setattr(pipeline, "STRETCH", 8)
        return stage

    return use
