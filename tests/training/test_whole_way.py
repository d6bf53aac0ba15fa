"""The tiny recipes from end to end on the CPU: two steps, on to the end, second stage, errors, prediction, export."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from predict_options import predict_options
from tiny_training import slim_networks, tiny_options

from i2l_meshnet.models import checkpoint
from i2l_meshnet.training import train as training
from i2l_meshnet.video import predict
from i2l_meshnet.video.options import ClipOptions


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    with slim_networks():
        yield


def test_tiny_trains_goes_on_measures_predicts_and_exports(tmp_path: Path) -> None:
    lixel = {"end_epoch": 1, "validation": "Toy"}
    assert training.run(tiny_options(tmp_path, lixel, max_steps=2)) == 0
    assert training.run(tiny_options(tmp_path, lixel, resume=True)) == 0
    param = {**lixel, "stage": "param", "first_epoch": 1, "end_epoch": 2}
    assert training.run(tiny_options(tmp_path, param)) == 0

    weights = tmp_path / "output" / "model_dump" / "snapshot_1.safetensors"
    errors = checkpoint.read_metadata(weights).extra["errors"]
    assert 0 < errors["MPJPE from param mesh"] < 5000

    picture = tmp_path / "data" / "Toy" / "toy-0-0000.png"
    out = tmp_path / "results"
    options = predict_options(
        str(picture), out=out, weights=weights, detect=False, device="cpu", formats=("obj", "glb")
    )
    assert predict.run(options, ClipOptions()) == 0
    record = json.loads((out / "toy-0-0000.json").read_text())
    assert record
    written = {path.suffix for path in out.iterdir()}
    assert {".obj", ".glb", ".json", ".npz"} <= written
