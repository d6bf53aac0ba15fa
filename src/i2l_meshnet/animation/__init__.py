"""Bodies in motion as files that animation programs open: skinned GLB and USD, BVH."""

from i2l_meshnet.animation.bvh import write_bvh
from i2l_meshnet.animation.glb import write_glb
from i2l_meshnet.animation.usd import USD_ENDINGS, require_usd, write_usd

__all__ = ["USD_ENDINGS", "require_usd", "write_bvh", "write_glb", "write_usd"]
