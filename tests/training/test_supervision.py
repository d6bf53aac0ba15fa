"""Datasets that cannot train a body are refused, and a training without targets stops."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import tiny_options

from i2l_meshnet.bodies import load_body
from i2l_meshnet.data.sources import Source
from i2l_meshnet.errors import InputError
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.training import data as training_data
from i2l_meshnet.training import train as training
from i2l_meshnet.training.data import TrainingData
from i2l_meshnet.training.loop import NoTargetError
from i2l_meshnet.training.recipe import RunOptions


@pytest.mark.parametrize(
    ("recipe", "train_3d", "train_2d", "argument"),
    [
        ("body-lixel", ("FreiHAND",), (), "train_3d"),
        ("body-lixel", ("Human36M", "FreiHAND"), (), "train_3d"),
        ("body-param", ("FreiHAND",), (), "train_3d"),
        ("hand-lixel", ("Human36M",), (), "train_3d"),
        ("hand-param", ("FreiHAND",), ("MSCOCO",), "train_2d"),
        ("body-lixel", ("Human36M", "MuCo", "PW3D"), ("MSCOCO",), None),
        ("body-smooth", ("Human36M",), ("MSCOCO",), None),
        ("body-param", ("MuCo",), (), None),
        ("hand-lixel", ("FreiHAND",), (), None),
    ],
)
def test_datasets_without_targets_are_refused(
    recipe: str,
    train_3d: tuple[str, ...],
    train_2d: tuple[str, ...],
    argument: str | None,
    dataset_root: Path,
    body_directory: Path,
) -> None:
    settings = dataclasses.replace(RECIPES[recipe][1], train_3d=train_3d, train_2d=train_2d)
    body = load_body(settings.body, body_directory)
    options = RunOptions(data=dataset_root, body_dir=body_directory)
    if argument is None:
        assert TrainingData(settings, options, body).sizes().keys() == {*train_3d, *train_2d}
        return
    with pytest.raises(InputError) as caught:
        TrainingData(settings, options, body)
    assert caught.value.argument == argument
    assert (train_3d + train_2d)[-1] in str(caught.value)


def test_a_batch_without_targets_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(folder: Path, count: int, seed: int = 0) -> Source:
        """People whose joints and fits are far outside their crops."""
        source = toy_source(folder, count, seed)
        arrays = dict(source.table.arrays)
        arrays["joints_image"] = arrays["joints_image"] + np.float32(1e5)
        arrays["translation"] = arrays["translation"] + np.float32([1e4, 0, 0])
        return dataclasses.replace(source, table=dataclasses.replace(source.table, arrays=arrays))

    toy_source = training_data.toy_source
    monkeypatch.setattr(training_data, "toy_source", outside)
    with pytest.raises(NoTargetError) as caught:
        training.run(tiny_options(tmp_path))
    path = tmp_path / "output" / "log" / "untargeted_1_0.json"
    assert str(path) in str(caught.value)
    assert len(json.loads(path.read_text())["samples"]) == 2
