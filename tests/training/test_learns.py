"""Proof that both stages learn: 32 pictures of the toy body are learnt by heart."""

import dataclasses
from pathlib import Path

import pytest

from i2l_meshnet.models import checkpoint
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.training import job
from i2l_meshnet.training.recipe import RunOptions, TrainOptions

REPEATS = 25
"""How often an epoch shows every picture: a hundred steps."""
LIXEL = dataclasses.replace(
    RECIPES["tiny"][1],
    train_3d=("Toy",) * REPEATS,
    pictures=32,
    batch=8,
    augment=False,
    validation="Toy:train",
    end_epoch=8,
    decay_epochs=(5, 7),
)
PARAM = dataclasses.replace(LIXEL, stage="param", first_epoch=8, end_epoch=18, decay_epochs=(14, 17))


@pytest.mark.slow
def test_both_stages_learn_32_pictures_by_heart(tmp_path: Path) -> None:
    run = RunOptions(data=tmp_path / "data", out=tmp_path / "output", workers=0, tensorboard=False, log_every=100)
    errors = {}
    for recipe in (LIXEL, PARAM):
        assert job.run(TrainOptions(recipe, run)) == 0
        best = run.out / "model_dump" / f"best_{recipe.stage}.safetensors"
        errors |= checkpoint.read_metadata(best).extra["errors"]
    assert errors["MPJPE from lixel mesh"] < 20
    assert errors["MPJPE from param mesh"] < 30
