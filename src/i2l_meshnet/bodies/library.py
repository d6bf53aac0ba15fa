"""The bodies by name."""

from collections.abc import Callable
from pathlib import Path

from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.linear import load_mano, load_smpl
from i2l_meshnet.bodies.mirrored import MirroredBody
from i2l_meshnet.bodies.toy import make_toy
from i2l_meshnet.errors import InputError

BODIES: dict[str, Callable[[Path | None], Body]] = {
    "anny": lambda _: AnnyBody.load(),
    "anny-hand": lambda _: AnnyBody.load_hand(),
    "anny-hand-left": lambda _: MirroredBody(AnnyBody.load_hand(), "anny-hand-left"),
    "smpl": lambda directory: load_smpl(find_body_file("smpl", directory), "smpl"),
    "smpl-male": lambda directory: load_smpl(find_body_file("smpl-male", directory), "smpl-male"),
    "smpl-female": lambda directory: load_smpl(find_body_file("smpl-female", directory), "smpl-female"),
    "mano": lambda directory: load_mano(find_body_file("mano", directory)),
    "mano-left": lambda directory: load_mano(find_body_file("mano", directory), left=True),
    "toy": lambda _: make_toy(),
}
"""Name of a body → function that makes it from the folder of licensed files."""
LICENSED = ("smpl", "smpl-male", "smpl-female", "mano", "mano-left")
"""Bodies that are read from the user's own licensed files."""


def load_body(name: str, directory: Path | None = None) -> Body:
    """Load a body by name.

    directory: folder of the licensed files of SMPL and MANO. Default: the environment variable I2L_MESHNET_BODIES (see
    docs/bodies.md). Raises InputError for an unknown name, FileError for a missing or wrong file.
    """
    if name not in BODIES:
        raise InputError(f"unknown body {name!r}; choose one of {', '.join(BODIES)}")
    return BODIES[name](directory)
