"""Recipes as TOML files: what a run writes into its folder, and `train --recipe FILE` reads."""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from i2l_meshnet.errors import InputError
from i2l_meshnet.io import read_bytes, reading, write_bytes
from i2l_meshnet.training.recipe import Recipe, TrainOptions

FAMILY = "name"
"""Key of the named recipe that the settings started from, such as body-lixel."""
RUN_SETTINGS = ("data", "body_dir", "code")
"""Settings of the run that are kept for the next command with the same output folder."""


@dataclasses.dataclass(frozen=True)
class RecipeFile:
    """Content of a recipe file. name: the named recipe that it started from. run: settings of `RunOptions`."""

    name: str
    recipe: Recipe
    run: dict[str, Any]


def recipe_path(out: Path, stage: str) -> Path:
    """The recipe file of a stage in the output folder of a training."""
    return out / f"recipe_{stage}.toml"


def write_recipe(options: TrainOptions) -> Path:
    """Write the recipe of a run into its output folder. Return the path."""
    lines = ["# Use it again: i2l-meshnet train --recipe FILE", _line(FAMILY, options.name)]
    lines += [_line(key, value) for key, value in options.recipe.to_json().items()]
    run = {key: getattr(options.run, key) for key in RUN_SETTINGS}
    lines += ["", "[run]", *(_line(key, str(value)) for key, value in run.items() if value is not None)]
    path = recipe_path(options.run.out, options.recipe.stage)
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def read_recipe(path: Path, named: Mapping[str, Recipe]) -> RecipeFile:
    """Read a recipe file. named: the named recipes. Settings that the file lacks are those of the recipe that it names.

    Raise FileError for a missing file or one that is not TOML, InputError for an unknown setting or a wrong value.
    """
    with reading(path, "a recipe (TOML)", "compare it with a recipe_lixel.toml that `train` wrote"):
        content = tomllib.loads(read_bytes(path).decode())
    run = content.pop("run", {})
    name = content.pop(FAMILY, "")
    types = typing.get_type_hints(Recipe)
    if name and name not in named:
        raise InputError(f"{path}: there is no recipe {name!r}; name one of {', '.join(named)}")
    for key, value in content.items():
        if key not in types:
            raise InputError(f"{path} has the unknown setting {key!r}; the settings are: {', '.join(types)}")
        content[key] = _checked(path, key, value, types[key])
    if not isinstance(run, dict) or not all(key in RUN_SETTINGS and isinstance(run[key], str) for key in run):
        raise InputError(f"{path}: [run] may have {' and '.join(RUN_SETTINGS)}, each a path in quotes")
    recipe = dataclasses.replace(named.get(name, Recipe()), **content)
    return RecipeFile(name, recipe, {key: Path(value) for key, value in run.items()})


def _line(key: str, value: Any) -> str:
    # Strings, numbers, truth values and lists are written the same way in JSON and TOML.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"


def _checked(path: Path, key: str, value: Any, kind: Any) -> Any:
    """A setting as `Recipe` has it. Raise InputError for a value of another type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"{path}: {key} must be one of {', '.join(arguments)}, not {value!r}")
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(path, key, item, arguments[0]) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    expected = "a list" if origin is tuple else kind.__name__
    raise InputError(f"{path}: {key} must be of type {expected}, not {value!r}")
