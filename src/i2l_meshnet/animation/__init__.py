"""Write animated bodies for animation programs: skinned GLB and USD, BVH."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.animation.bvh import write_bvh
from i2l_meshnet.animation.glb import write_glb
from i2l_meshnet.animation.usd import USD_ENDINGS, require_usd, write_usd
from i2l_meshnet.bodies.base import Body, BodyParams

ENDINGS = (".glb", ".bvh", *USD_ENDINGS)

__all__ = ["ENDINGS", "USD_ENDINGS", "require_usd", "write_animation", "write_bvh", "write_glb", "write_usd"]


def write_animation(path: Path, body: Body, params: BodyParams, times: Float[Tensor, "t"], full: bool = False) -> None:
    """Write an animated body in the format of the path's suffix, one of `ENDINGS`. Arguments: see `write_glb`.

    A .bvh file has no mesh, and its times start at 0.
    """
    if path.suffix == ".bvh":
        write_bvh(path, body, params, times)
    else:
        write = write_glb if path.suffix == ".glb" else write_usd
        write(path, body, params, times, full)
