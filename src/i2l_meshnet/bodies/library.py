"""The bodies by name."""

from pathlib import Path

from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError

BODIES = ("anny", "anny-hand")
"""Names that `load_body` knows."""


def load_body(name: str, directory: Path | None = None) -> Body:
    """The body of that name. `directory`: where the licensed files of SMPL and MANO are; see docs/bodies.md.

    Raises InputError for an unknown name.
    """
    match name:
        case "anny":
            return AnnyBody.load()
        case "anny-hand":
            return AnnyBody.load_hand()
    raise InputError(f"there is no body {name!r}; choose one of {', '.join(BODIES)}")
