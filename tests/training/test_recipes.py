"""The recipes are the published settings, and the command line changes any of them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from i2l_meshnet import cli
from i2l_meshnet.devices import device_numbers
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.training.recipe import Recipe, RunOptions, TrainOptions
from i2l_meshnet.training.recipe_file import read_recipe, recipe_path, write_recipe

NAMED = {name: recipe for name, (_, recipe) in RECIPES.items()}


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("body-lixel", {0: 1e-4, 9: 1e-4, 10: 1e-5, 11: 1e-5, 12: 1e-6}),
        ("body-param", {13: 1e-4, 14: 1e-4, 15: 1e-5, 16: 1e-5, 17: 1e-6}),
        ("hand-lixel", {0: 1e-4, 16: 1e-4, 17: 1e-5, 20: 1e-5, 21: 1e-6, 24: 1e-6}),
        ("hand-param", {25: 1e-5, 26: 1e-6, 29: 1e-6}),
    ],
)
def test_published_schedule(name: str, rates: dict[int, float]) -> None:
    recipe = RECIPES[name][1]
    assert (recipe.first_epoch, recipe.end_epoch - 1) == (min(rates), max(rates))
    for epoch, rate in rates.items():
        assert recipe.rate(epoch) == pytest.approx(rate)
    assert (recipe.batch, recipe.backbone, recipe.crop, recipe.batchnorm) == (16, "resnet50", 256, "local")
    assert not recipe.parity


def test_published_data() -> None:
    body, smooth, hand = (RECIPES[name][1] for name in ("body-lixel", "body-smooth", "hand-lixel"))
    assert (body.train_3d, body.train_2d, body.own_joints) == (("Human36M", "MuCo"), ("MSCOCO",), True)
    assert smooth == dataclasses.replace(body, own_joints=False)
    assert (hand.body, hand.train_3d, hand.train_2d) == ("mano", ("FreiHAND",), ())


def parse(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> TrainOptions:
    """The options that a command line of `i2l-meshnet` gives to the training."""
    given: list[TrainOptions] = []
    monkeypatch.setattr("i2l_meshnet.training.train.run", lambda options: given.append(options) or 0)
    assert cli.main(["train", *arguments]) == 0
    return given[0]


@pytest.mark.parametrize("name", RECIPES)
def test_command_line_gives_the_recipe_and_changes_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The toy images are small: loader processes would take longer to start than to read them.
    run = RunOptions(workers=0 if name.startswith("tiny") else 4)
    assert parse(monkeypatch, name) == TrainOptions(RECIPES[name][1], run, name)
    arguments = [name, "--batch", "3", "--continue", "--gpu", "0-3", "--learning-rate", "0.01", "--out", "elsewhere"]
    changed = parse(monkeypatch, *arguments)
    assert changed.recipe == dataclasses.replace(RECIPES[name][1], batch=3, learning_rate=0.01)
    assert changed.run.resume
    assert device_numbers(changed.run.gpu) == [0, 1, 2, 3]
    assert str(changed.run.out) == "elsewhere"


def test_a_recipe_file_gives_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dataclasses.replace(
        RECIPES["body-smooth"][1], backbone="resnet101", decay_epochs=(3,), ema=0.999, parity=("full-decode",)
    )
    run = RunOptions(data=tmp_path / "data", body_dir=tmp_path / "bödies", out=tmp_path / "out")
    path = write_recipe(TrainOptions(recipe, run, "body-smooth"))
    assert path == recipe_path(run.out, "lixel")
    found = read_recipe(path, NAMED)
    assert (found.name, found.recipe) == ("body-smooth", recipe)
    assert found.run == {"data": run.data, "body_dir": run.body_dir}
    options = parse(monkeypatch, "--recipe", str(path), "--batch", "2", "--out", str(tmp_path / "other"))
    assert options.recipe == dataclasses.replace(recipe, batch=2)
    assert (options.run.data, options.run.body_dir, options.run.out) == (run.data, run.body_dir, tmp_path / "other")


def test_the_next_command_takes_settings_from_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(
        RECIPES["body-lixel"][1], backbone="resnet34", crop=128, end_epoch=4, decay_epochs=(3,)
    )
    write_recipe(TrainOptions(recipe, RunOptions(data=tmp_path, out=tmp_path), "body-lixel"))
    after = parse(monkeypatch, "body-param", "--out", str(tmp_path), "--crop", "64")
    assert (after.recipe.stage, after.recipe.backbone, after.recipe.crop) == ("param", "resnet34", 64)
    assert (after.recipe.first_epoch, after.recipe.end_epoch, after.recipe.decay_epochs) == (4, 9, (8,))
    assert after.run.data == tmp_path
    resumed = parse(monkeypatch, "body-lixel", "--continue", f"--out={tmp_path}")
    assert resumed.recipe == recipe
    assert cli.main(["train", "hand-param", "--out", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    "text", ["batch = 4 4", "bach = 4", 'batch = "4"', "stage = 'mesh'", "train_3d = 'MuCo'", "[run]\nout = 1"]
)
def test_a_wrong_recipe_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_recipe(path, NAMED)
    assert str(path) in str(caught.value)


SETTINGS = {"batch": 0, "first_epoch": 13, "learning_rate": float("nan"), "edge_weight": -1.0, "ema": 1.0, "crop": 100}


@pytest.mark.parametrize("setting", [{"train_3d": (), "train_2d": ()}, *({key: SETTINGS[key]} for key in SETTINGS)])
def test_settings_out_of_range(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Recipe(**setting)
    assert caught.value.argument == next(iter(setting))


def test_differences_name_the_setting() -> None:
    recipe = RECIPES["tiny"][1]
    assert recipe.differences(recipe.to_json()) == []
    assert dataclasses.replace(recipe, end_epoch=9).differences(recipe.to_json()) == []
    assert dataclasses.replace(recipe, batch=7).differences(recipe.to_json()) == ["batch 8, not 7"]
