"""`i2l-meshnet serve`."""

from typing import Annotated

import tyro

from i2l_meshnet.serving import server
from i2l_meshnet.serving.server import ServeOptions


def serve(options: Annotated[ServeOptions, tyro.conf.arg(name="")]) -> int:
    """Open a page on this machine that turns photos into 3D meshes, and an HTTP endpoint beside it."""
    return server.run(options)
