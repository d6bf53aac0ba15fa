"""`i2l-meshnet view`."""

from typing import Annotated

import tyro

from i2l_meshnet.viewing import view as viewing
from i2l_meshnet.viewing.view import ViewOptions


def view(options: Annotated[ViewOptions, tyro.conf.arg(name="")]) -> int:
    """Look at saved results from all sides, in the browser on this machine."""
    return viewing.run(options)
