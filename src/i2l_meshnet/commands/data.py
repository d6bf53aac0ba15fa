"""`i2l-meshnet data`."""

from typing import Annotated

import tyro

from i2l_meshnet.data import command
from i2l_meshnet.data.command import DataOptions


def data(options: Annotated[DataOptions, tyro.conf.arg(name="")]) -> int:
    """Fetch open benchmarks, check datasets, and convert original releases."""
    return command.run(options)
