"""Parametric bodies behind one interface: `load_body(name)` gives a `Body`."""

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.bodies.library import BODIES, load_body

__all__ = ["BODIES", "Body", "BodyMesh", "BodyParams", "load_body"]
