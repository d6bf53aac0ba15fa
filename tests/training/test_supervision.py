"""Datasets that cannot train a body are refused, and a training without targets stops."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import tiny_options

from i2l_meshnet.bodies import load_body
from i2l_meshnet.data.sources import Source, open_source
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


@pytest.mark.parametrize(
    ("recipe", "validation", "split"),
    [
        ("body-lixel", "Human36M", "test"),
        ("body-lixel", "PW3D", "test"),
        ("body-lixel", "PW3D:validation", "validation"),
        ("body-lixel", "MSCOCO:train", "train"),
        ("hand-lixel", "FreiHAND:train", "train"),
        ("body-lixel", "MSCOCO", None),  # Its split val has no ground truth.
        ("hand-lixel", "FreiHAND", None),  # Nor has eval.
        ("hand-lixel", "PW3D", None),  # It has no joint of a hand but the wrist.
        ("body-lixel", "MuCo:test", None),
    ],
)
def test_validation_uses_the_split_of_the_benchmark_and_needs_ground_truth(
    recipe: str,
    validation: str,
    split: str | None,
    dataset_root: Path,
    body_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = RECIPES[recipe][1]
    train = ("PW3D",) if settings.body == "smpl" else ("FreiHAND",)
    settings = dataclasses.replace(settings, train_3d=train, train_2d=(), validation=validation)
    body = load_body(settings.body, body_directory)
    options = RunOptions(data=dataset_root, body_dir=body_directory)
    if split is not None:
        opened: list[tuple[str, str]] = []

        def recorded(name: str, root: Path, split: str, true_boxes: bool) -> Source:
            opened.append((name, split))
            return open_source(name, root, split, true_boxes)

        monkeypatch.setattr(training_data, "open_source", recorded)
        TrainingData(settings, options, body)
        assert opened[-1] == (validation.partition(":")[0], split)
        return
    with pytest.raises(InputError) as caught:
        TrainingData(settings, options, body)
    name = validation.partition(":")[0]
    assert all(known in str(caught.value) for known in (name, *training_data.dataset_splits()[name]))


def test_a_batch_without_targets_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(root: Path, split: str, pictures: int) -> Source:
        """People whose joints and fits are far outside their crops."""
        source = open_toy(root, split, pictures)
        arrays = dict(source.table.arrays)
        arrays["joints_image"] = arrays["joints_image"] + np.float32(1e5)
        arrays["translation"] = arrays["translation"] + np.float32([1e4, 0, 0])
        return dataclasses.replace(source, table=dataclasses.replace(source.table, arrays=arrays))

    open_toy = training_data.open_toy
    monkeypatch.setattr(training_data, "open_toy", outside)
    with pytest.raises(NoTargetError) as caught:
        training.run(tiny_options(tmp_path))
    path = tmp_path / "output" / "log" / "untargeted_1_0.json"
    assert str(path) in str(caught.value)
    assert len(json.loads(path.read_text())["samples"]) == 2
