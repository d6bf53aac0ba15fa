"""A z-buffer for triangle meshes on the CPU: no display, no GPU, no system library.

One rasteriser serves the overlays and the synthetic pictures. It works on points that are already
projected, so it knows no camera; several meshes share one buffer by being concatenated.
"""

import dataclasses
import math
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from i2l_meshnet.compiling import compiled


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Alpha test: where a texture is transparent, its triangles leave no pixel (hair, lace).

    opaque: one mask per texture, row 0 at the top (v = 1). uv: texture coordinates of each triangle's corners,
    v upwards, repeated outside [0, 1]. texture: which mask a triangle uses, -1 for none.
    """

    opaque: Bool[np.ndarray, "t th tw"]
    uv: Float32[np.ndarray, "f 3 2"]
    texture: Int32[np.ndarray, "f"]


@dataclasses.dataclass(frozen=True)
class RasterBuffers:
    """What each pixel shows.

    depth: metres along z, infinity where nothing is. face: index of the visible triangle, -1 where nothing is.
    barycentric: perspective-correct weights of its three corners, 0 where nothing is.
    """

    depth: Float32[np.ndarray, "h w"]
    face: Int32[np.ndarray, "h w"]
    barycentric: Float32[np.ndarray, "h w 3"]

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """Whether a pixel shows a triangle."""
        return self.face >= 0


def rasterize(
    points: Float32[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    size: tuple[int, int],
    depth_bias: Float32[np.ndarray, "f"] | None = None,
    cutout: Cutout | None = None,
    near: float = 0.01,
) -> RasterBuffers:
    """Draws triangles of either winding into a buffer of `size` (height, width).

    points: x and y in pixels (integers are pixel centres), z in metres along the optical axis. A pixel is
    covered if its centre lies in the triangle or on its edge; shared edges leave no gap. The nearest triangle
    wins, of equally near ones the first. depth_bias: metres by which a triangle is taken to be nearer when
    it competes (cloth over skin); the depth that is returned is the true one. A triangle with a corner nearer
    than `near` metres, behind the camera or not finite is left out.

    Raises ValueError if a face names a point that does not exist or `size` is not positive.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"a raster needs a positive size, not {size}")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(points)):
        raise ValueError(f"faces name points outside 0..{len(points) - 1}")
    depth = np.full((height, width), np.inf, np.float32)
    face = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    if depth_bias is None:
        depth_bias = np.zeros(len(faces), np.float32)
    if cutout is None:
        corners = np.zeros((len(faces), 3, 2), np.float32)
        cutout = Cutout(np.ones((1, 1, 1), np.bool_), corners, np.full(len(faces), -1, np.int32))
    _fill(
        np.ascontiguousarray(points),
        np.ascontiguousarray(faces, np.int32),
        np.ascontiguousarray(depth_bias),
        np.ascontiguousarray(cutout.opaque),
        np.ascontiguousarray(cutout.uv),
        np.ascontiguousarray(cutout.texture),
        near,
        np.full((height, width), np.inf, np.float32),
        depth,
        face,
        barycentric,
    )
    return RasterBuffers(depth, face, barycentric)


@compiled
@no_type_check  # the jaxtyping import hook must leave compiled functions alone
def edge_functions(x0, y0, x1, y1, x2, y2, sign, x, y):
    """Twice the areas of the triangles that a pixel makes with each edge; all are at least 0 where it is covered.

    Each is computed from its own two corners relative to the pixel: swapping the corners negates it exactly, so that
    two triangles never both miss a pixel on the edge they share. (Hence no fastmath.) sign: that of the winding.
    """
    dx0, dx1, dx2 = x0 - x, x1 - x, x2 - x
    dy0, dy1, dy2 = y0 - y, y1 - y, y2 - y
    return sign * (dx1 * dy2 - dx2 * dy1), sign * (dx2 * dy0 - dx0 * dy2), sign * (dx0 * dy1 - dx1 * dy0)


@compiled
@no_type_check
def _fill(points, faces, bias, opaque, uv, texture, near, rank, depth, face, barycentric):
    """The loop over triangles. `rank` is the biased depth that decides who is in front."""
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0 = float(points[a, 0]), float(points[a, 1]), float(points[a, 2])
        x1, y1, z1 = float(points[b, 0]), float(points[b, 1]), float(points[b, 2])
        x2, y2, z2 = float(points[c, 0]), float(points[c, 1]), float(points[c, 2])
        if not (z0 > near and z1 > near and z2 > near):
            continue
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if not math.isfinite(area + z0 + z1 + z2) or area == 0.0:
            continue
        # Clamped before the conversion to integers, which could overflow.
        left = int(max(0.0, math.ceil(min(x0, x1, x2))))
        right = int(min(width - 1.0, math.floor(max(x0, x1, x2))))
        top = int(max(0.0, math.ceil(min(y0, y1, y2))))
        bottom = int(min(height - 1.0, math.floor(max(y0, y1, y2))))
        if right < left or bottom < top:
            continue
        sign = 1.0 if area > 0.0 else -1.0
        i0, i1, i2 = 1.0 / z0, 1.0 / z1, 1.0 / z2
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                e0, e1, e2 = edge_functions(x0, y0, x1, y1, x2, y2, sign, x, y)
                if e0 < 0.0 or e1 < 0.0 or e2 < 0.0:
                    continue
                w0, w1, w2 = e0 * i0, e1 * i1, e2 * i2
                total = w0 + w1 + w2
                z = (e0 + e1 + e2) / total
                key = np.float32(z - bias[f])
                if not key < rank[y, x]:
                    continue
                w0, w1, w2 = w0 / total, w1 / total, w2 / total
                t = texture[f]
                if t >= 0:
                    u = w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]
                    v = w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]
                    rows, columns = opaque.shape[1], opaque.shape[2]
                    row = min(int((1.0 - (v - math.floor(v))) * rows), rows - 1)
                    column = min(int((u - math.floor(u)) * columns), columns - 1)
                    if not opaque[t, row, column]:
                        continue
                rank[y, x] = key
                depth[y, x] = z
                face[y, x] = f
                barycentric[y, x, 0] = w0
                barycentric[y, x, 1] = w1
                barycentric[y, x, 2] = w2
