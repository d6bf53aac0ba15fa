"""The toy dataset: drawn once, with splits, and evaluated like every other dataset."""

import csv
import json
from pathlib import Path

import pytest
from tiny_training import tiny_options

from i2l_meshnet import cli
from i2l_meshnet.data.sources.toy import open_toy
from i2l_meshnet.errors import InputError
from i2l_meshnet.training import train as training


def test_evaluate_measures_the_validation_error(tmp_path: Path) -> None:
    options = tiny_options(tmp_path, {"pictures": 32, "batch": 16, "end_epoch": 1, "validation": "Toy"})
    assert training.run(options) == 0
    with (options.run.out / "log" / "lixel.csv").open() as file:
        error = float(list(csv.DictReader(file))[-1]["validation MPJPE of lixel mesh"])
    weights, out = options.run.out / "model_dump" / "snapshot_0.safetensors", options.run.out / "result"
    arguments = ["--data", "Toy", "--root", str(options.run.data), "--weights", str(weights), "--out", str(out)]
    assert cli.main(["evaluate", *arguments, "--stage", "lixel", "--device", "cpu"]) == 0
    found = json.loads((out / "metrics.json").read_text())
    assert found["samples"] == 32
    assert found["metrics"]["lixel"]["mpjpe_mm"] == pytest.approx(error, rel=1e-4)
    assert found["metrics"]["lixel"]["mpvpe_mm"] > 0


def test_images_of_another_number_of_people_are_other_images(tmp_path: Path) -> None:
    few, more = (open_toy(tmp_path, "train", count) for count in (2, 3))
    assert {few.image_path(i) for i in range(2)}.isdisjoint(more.image_path(i) for i in range(3))
    assert all(source.image_path(0).is_file() for source in (few, more))
    assert [len(open_toy(tmp_path, "test", count)) for count in (5, 64)] == [5, 32]
    with pytest.raises(InputError):
        open_toy(tmp_path, "val", 2)
