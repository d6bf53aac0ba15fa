"""Named recipes for `i2l-meshnet train`: the published settings, and our own."""

import argparse
import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from i2l_meshnet.console import message
from i2l_meshnet.errors import InputError
from i2l_meshnet.training.recipe import Recipe, RunOptions, TrainOptions
from i2l_meshnet.training.recipe_file import read_recipe, recipe_path

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


# In two minutes on two cores, a narrow network sees seven times as many images as a ResNet-18.
_TINY = Recipe(
    body="toy",
    backbone="resnet18-narrow",
    head="lixel-narrow",
    crop=64,
    train_3d=("Toy",),
    train_2d=(),
    validation="Toy",
    pictures=512,
    imagenet="none",
    batch=8,
    end_epoch=14,
    decay_epochs=(10, 13),
    decay_factor=4.0,
    learning_rate=3e-3,
    augment=False,
)

RECIPES: dict[str, tuple[str, Recipe]] = {
    "body-lixel": ("SMPL from Human3.6M, MuCo and COCO, lixel stage, as published.", BODY_LIXEL),
    "body-param": ("SMPL, parameter stage, starts from body-lixel's newest snapshot.", _param(BODY_LIXEL)),
    "body-smooth": (
        "Like body-lixel without losses on the datasets' own joints. Meshes are smoother and less accurate.",
        dataclasses.replace(BODY_LIXEL, own_joints=False),
    ),
    "hand-lixel": ("MANO from FreiHAND, lixel stage, as published.", HAND_LIXEL),
    "hand-param": ("MANO, parameter stage, starts from hand-lixel's newest snapshot.", _param(HAND_LIXEL)),
    "anny-lixel": ("The published network for the Anny body on synthetic images, lixel stage.", ANNY_LIXEL),
    "anny-param": ("Anny, parameter stage, starts from anny-lixel's newest snapshot.", _param(ANNY_LIXEL)),
    "tiny": ("A toy body on drawn images, lixel stage: to try out training on a CPU in a few minutes.", _TINY),
    "tiny-param": ("The toy body, parameter stage, starts from tiny's newest snapshot.", _param(_TINY)),
}
"""Name → description, recipe."""


def train_function(defaults: Mapping[str, tuple[str, TrainOptions]]) -> Callable[..., int]:
    """The `train` command. defaults: name of each recipe → description, and the values of its options."""
    # The type exists only at run time, for tyro.
    kind = tyro.extras.subcommand_type_from_defaults(
        {name: options for name, (_, options) in defaults.items()},
        {name: description for name, (description, _) in defaults.items()},
        prefix_names=False,
    )

    def train(options: Any) -> int:
        """Train a network. `train RECIPE --help` lists all settings; `train --recipe FILE` reads them from a file."""
        if importlib.util.find_spec("lightning_fabric") is None:
            raise InputError("training needs Lightning Fabric: pip install 'i2l-meshnet[train]'")
        # Imported late: it takes a second.
        from i2l_meshnet.training.train import run

        return run(options)

    train.__annotations__["options"] = Annotated[kind, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes]
    return train


def _run_options(name: str, settings: Mapping[str, Any] | None = None) -> RunOptions:
    """The defaults of a recipe's run, with `settings`."""
    defaults = {"workers": 0} if name.startswith("tiny") else {}
    return RunOptions(**{**defaults, **(settings or {})})


train = train_function(
    {name: (text, TrainOptions(recipe, _run_options(name), name)) for name, (text, recipe) in RECIPES.items()}
)
"""The `train` command with the defaults of `RECIPES`."""


def prepare_train(arguments: Sequence[str]) -> tuple[Callable[..., int], list[str]]:
    """The `train` command and its arguments, with the defaults that the arguments ask for.

    `--recipe FILE` gives the settings of a file. `--continue`, and a parameter stage after its lixel stage, start from
    the recipe that the earlier run wrote into the output folder. Options on the command line override all of these.
    Raise FileError or InputError for a recipe file that cannot be used.
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--recipe", type=Path)
    known.add_argument("--out", type=Path, default=RunOptions.out)
    known.add_argument("--continue", "--resume", dest="resume", action="store_true")
    given, _ = known.parse_known_args([word for word in arguments if word not in ("-h", "--help")])
    words, named = list(arguments), {name: recipe for name, (_, recipe) in RECIPES.items()}
    if given.recipe is not None:
        found = read_recipe(given.recipe, named)
        name = found.name or f"{found.recipe.body}-{found.recipe.stage}"
        at = next(i for i, word in enumerate(words) if word.partition("=")[0] == "--recipe")
        del words[at : at + (1 if "=" in words[at] else 2)]
        if words[1:2] and words[1] in RECIPES:
            raise InputError(f"give a recipe's name ({words[1]}) or a file, not both", argument="recipe")
        words.insert(1, name)
        options = TrainOptions(found.recipe, _run_options(name, found.run), name)
        return train_function({name: (f"The settings of {given.recipe}.", options)}), words
    name = words[1] if len(words) > 1 else ""
    if name not in RECIPES:
        return train, words
    recipe = RECIPES[name][1]
    lixel, own = recipe_path(given.out, "lixel"), recipe_path(given.out, recipe.stage)
    if given.resume and own.is_file():
        path = own
    elif recipe.stage == "param" and lixel.is_file():
        path = lixel
    else:
        return train, words
    found = read_recipe(path, named)
    if found.name and found.name.partition("-")[0] != name.partition("-")[0]:
        raise InputError(
            f"{given.out} has a training of {found.name}, not of {name}: choose another output folder", argument="out"
        )
    recipe = found.recipe if path == own else _param(found.recipe)
    message(f"settings of {path}")
    options = TrainOptions(recipe, _run_options(name, found.run), name)
    return train_function({name: (RECIPES[name][0], options)}), words
