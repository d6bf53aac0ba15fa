"""The recipes are the published settings, and the command line changes any of them."""

import dataclasses
from typing import Any

import pytest
import tyro

from i2l_meshnet.errors import InputError
from i2l_meshnet.recipes import RECIPES, TrainCommand
from i2l_meshnet.training.recipe import Recipe, RunOptions, TrainOptions


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


@pytest.mark.parametrize("name", RECIPES)
def test_command_line_gives_the_recipe_and_changes_it(name: str) -> None:
    plain: TrainOptions = tyro.cli(TrainCommand, args=[name])
    assert plain == TrainOptions(RECIPES[name][1])
    arguments = [name, "--batch", "3", "--continue", "--gpu", "0-3", "--learning-rate", "0.01", "--out", "elsewhere"]
    changed: TrainOptions = tyro.cli(TrainCommand, args=arguments)
    assert changed.recipe == dataclasses.replace(RECIPES[name][1], batch=3, learning_rate=0.01)
    assert changed.run.resume
    assert changed.run.device_numbers() == [0, 1, 2, 3]
    assert str(changed.run.out) == "elsewhere"


@pytest.mark.parametrize(("text", "numbers"), [("", None), ("0", [0]), ("0,2", [0, 2]), ("1, 4-5", [1, 4, 5])])
def test_device_numbers(text: str, numbers: list[int] | None) -> None:
    assert RunOptions(gpu=text).device_numbers() == numbers


@pytest.mark.parametrize("text", ["a", "0-", "0,0", "3-2"])
def test_wrong_device_numbers(text: str) -> None:
    with pytest.raises(InputError) as caught:
        RunOptions(gpu=text).device_numbers()
    assert caught.value.argument == "gpu"


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
    assert dataclasses.replace(recipe, batch=7).differences(recipe.to_json()) == ["batch 4, not 7"]
