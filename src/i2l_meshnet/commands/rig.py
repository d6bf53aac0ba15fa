"""`i2l-meshnet rig`."""

from typing import Annotated

import tyro

from i2l_meshnet.viewing import rig as rigging
from i2l_meshnet.viewing.rig import RigOptions


def rig(options: Annotated[RigOptions, tyro.conf.arg(name="")]) -> int:
    """Write a saved person as a file with skeleton and motion: skinned GLB or USD, or BVH."""
    return rigging.run(options)
