"""Named recipes for `i2l-meshnet train`: the published settings, and our own."""

import dataclasses
import importlib.util
from typing import Annotated

import tyro

from i2l_meshnet.errors import InputError
from i2l_meshnet.training.recipe import Recipe, TrainOptions

BODY_LIXEL = Recipe(
    body="smpl", train_3d=("Human36M", "MuCo"), train_2d=("MSCOCO",), end_epoch=13, decay_epochs=(10, 12)
)
HAND_LIXEL = Recipe(
    body="mano", train_3d=("FreiHAND",), train_2d=(), own_joints=False, end_epoch=25, decay_epochs=(17, 21)
)
PARAMETER_EPOCHS = 5
ANNY_LIXEL = Recipe(
    body="anny",
    train_3d=("Synthetic",),
    train_2d=(),
    validation="Synthetic:val",
    # In these images, the joints are the joints of the fits.
    own_joints=False,
    imagenet="keras",
    end_epoch=13,
    decay_epochs=(10, 12),
)


def _param(lixel: Recipe) -> Recipe:
    """The published parameter stage: five more epochs after the lixel stage, with the decay epochs moved by five."""
    return dataclasses.replace(
        lixel,
        stage="param",
        first_epoch=lixel.end_epoch,
        end_epoch=lixel.end_epoch + PARAMETER_EPOCHS,
        decay_epochs=tuple(epoch + PARAMETER_EPOCHS for epoch in lixel.decay_epochs),
    )


_TINY = Recipe(
    body="toy",
    backbone="resnet18",
    crop=64,
    train_3d=("Toy",),
    train_2d=(),
    validation="Toy",
    pictures=16,
    imagenet="none",
    batch=4,
    end_epoch=2,
    decay_epochs=(),
    learning_rate=1e-3,
)

RECIPES: dict[str, tuple[str, Recipe]] = {
    "body-lixel": ("SMPL from Human3.6M, MuCo and COCO, lixel stage, as published.", BODY_LIXEL),
    "body-param": ("SMPL, parameter stage, starts from body-lixel's newest snapshot.", _param(BODY_LIXEL)),
    "body-smooth": (
        "Like body-lixel without the datasets' own joints: meshes look smoother and are less accurate.",
        dataclasses.replace(BODY_LIXEL, own_joints=False),
    ),
    "hand-lixel": ("MANO from FreiHAND, lixel stage, as published.", HAND_LIXEL),
    "hand-param": ("MANO, parameter stage, starts from hand-lixel's newest snapshot.", _param(HAND_LIXEL)),
    "anny-lixel": ("The published network for the Anny body on synthetic images, lixel stage.", ANNY_LIXEL),
    "anny-param": ("Anny, parameter stage, starts from anny-lixel's newest snapshot.", _param(ANNY_LIXEL)),
    "tiny": ("A toy body on drawn images, lixel stage: to try out training on a CPU in a minute or two.", _TINY),
    "tiny-param": ("The toy body, parameter stage, starts from tiny's newest snapshot.", _param(_TINY)),
}
"""Name → description, recipe."""

# A type that tyro makes at run time.
TrainCommand = Annotated[
    tyro.extras.subcommand_type_from_defaults(
        {name: TrainOptions(recipe) for name, (_, recipe) in RECIPES.items()},
        {name: description for name, (description, _) in RECIPES.items()},
        prefix_names=False,
    ),
    tyro.conf.OmitArgPrefixes,
]
"""The options of `i2l-meshnet train`: the name of a recipe, its settings, and the settings of the run."""


def train(options: Annotated[TrainCommand, tyro.conf.arg(name="")]) -> int:  # pyright: ignore[reportInvalidTypeForm]
    """Train a network with a recipe. `train RECIPE --help` lists its settings."""
    if importlib.util.find_spec("lightning_fabric") is None:
        raise InputError("training needs Lightning Fabric: pip install 'i2l-meshnet[train]'")
    # Imported late: it takes a second.
    from i2l_meshnet.training.train import run

    return run(options)
