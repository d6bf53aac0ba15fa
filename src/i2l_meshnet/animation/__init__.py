"""Bodies in motion as files that animation programs open: skinned GLB and BVH."""

from i2l_meshnet.animation.bvh import write_bvh
from i2l_meshnet.animation.glb import write_glb

__all__ = ["write_bvh", "write_glb"]
