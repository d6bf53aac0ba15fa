"""The `data` command: check a data set, or make its files from an original release."""

import dataclasses
from typing import Annotated

import tyro

from i2l_meshnet.data import check
from i2l_meshnet.data.check import CheckOptions
from i2l_meshnet.data.convert import Pw3dOptions, SurrealOptions, convert_pw3d, convert_surreal


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Make annotation files from an original release; a conversion that was broken off goes on where it was."""

    release: Annotated[
        Annotated[Pw3dOptions, tyro.conf.subcommand("3dpw")]
        | Annotated[SurrealOptions, tyro.conf.subcommand("surreal")],
        tyro.conf.arg(name=""),
    ]
    """Which release, and where."""


DataOptions = (
    Annotated[CheckOptions, tyro.conf.subcommand("check", description="Say what is there of a data set, draw samples.")]
    | Annotated[ConvertOptions, tyro.conf.subcommand("convert")]
)


def run(options: CheckOptions | ConvertOptions) -> int:
    """Does what is asked; returns the exit code."""
    if isinstance(options, CheckOptions):
        return check.run(options)
    if isinstance(options.release, Pw3dOptions):
        return convert_pw3d(options.release)
    return convert_surreal(options.release)
