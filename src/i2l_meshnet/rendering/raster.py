"""A z-buffer for triangle meshes on the CPU: no display, no GPU, no system library.

`lit` uses it for overlays, band by band; `shading` for all other images. The points are already projected, so there is
no camera here. Several meshes are drawn into one buffer by concatenating them.

Compiled functions have many parameters because numba does not compile dataclasses.
"""

import dataclasses
import math
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from i2l_meshnet.compiling import compiled

NEAR = 0.01
"""Triangles with a corner nearer to the camera are not drawn, metres."""
_SLACK = 0.01
"""Error of the computed ends of a triangle's row, pixels. The edge functions then decide exactly."""


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Alpha test: transparent parts of a texture are not drawn (hair, lace).

    opaque: one mask per texture, row 0 at the top (v = 1). uv: texture coordinates of each triangle's corners,
    v upwards, repeated outside [0, 1]. texture: index of each triangle's mask, -1 for none.
    """

    opaque: Bool[np.ndarray, "t th tw"]
    uv: Float32[np.ndarray, "f 3 2"]
    texture: Int32[np.ndarray, "f"]


@dataclasses.dataclass(frozen=True)
class RasterBuffers:
    """The visible triangle of each pixel.

    depth: metres along z. face: index of the triangle. barycentric: perspective-correct weights of its three corners.
    An empty pixel has the depth infinity, the face -1 and the weights 0.
    """

    depth: Float32[np.ndarray, "h w"]
    face: Int32[np.ndarray, "h w"]
    barycentric: Float32[np.ndarray, "h w 3"]

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """Whether each pixel shows a triangle."""
        return self.face >= 0


def rasterize(
    points: Float32[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    size: tuple[int, int],
    depth_bias: Float32[np.ndarray, "f"] | None = None,
    cutout: Cutout | None = None,
) -> RasterBuffers:
    """Draw triangles of either winding into a buffer of `size` (height, width).

    points: x and y in pixels (integers are pixel centres), z in metres along the optical axis. A pixel is covered if
    its centre is inside the triangle or on its edge; shared edges leave no gap. The nearest triangle is visible; of
    equally near triangles, the first. depth_bias: metres that are subtracted from a triangle's depth in this comparison
    (cloth over skin); the returned depth is unbiased. A triangle is skipped if a corner is nearer than `NEAR`, behind
    the camera or not finite.

    Raises ValueError if a face has an invalid index or `size` is not positive.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"a raster needs a positive size, not {size}")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(points)):
        raise ValueError(f"faces have indices outside 0..{len(points) - 1}")
    points, faces = np.ascontiguousarray(points), np.ascontiguousarray(faces, np.int32)
    bias, texture = plain(len(faces))
    if depth_bias is not None:
        bias = np.ascontiguousarray(depth_bias)
    if cutout is not None:
        texture = tuple(np.ascontiguousarray(part) for part in (cutout.texture, cutout.uv, cutout.opaque))
    nearest, face = np.full((height, width), np.inf, np.float32), np.full((height, width), -1, np.int32)
    depth, barycentric = np.full((height, width), np.inf, np.float32), np.zeros((height, width, 3), np.float32)
    _fill(points, faces, bias, texture, nearest, face)
    _resolve(points, faces, face, depth, barycentric)
    return RasterBuffers(depth, face, barycentric)


def plain(count: int) -> tuple[Float32[np.ndarray, "f"], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Arguments of `cover` for `count` triangles without depth bias and cutout."""
    corners = np.zeros((count, 3, 2), np.float32)
    return np.zeros(count, np.float32), (np.full(count, -1, np.int32), corners, np.ones((1, 1, 1), np.bool_))


@compiled
@no_type_check  # the jaxtyping import hook must not wrap compiled functions
def corners(points, faces, f):
    """Coordinates of the three corners of triangle f."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    x0, y0, z0 = float(points[a, 0]), float(points[a, 1]), float(points[a, 2])
    x1, y1, z1 = float(points[b, 0]), float(points[b, 1]), float(points[b, 2])
    x2, y2, z2 = float(points[c, 0]), float(points[c, 1]), float(points[c, 2])
    return x0, y0, z0, x1, y1, z1, x2, y2, z2


@compiled
@no_type_check
def doubled_area(x0, y0, x1, y1, x2, y2):
    """Twice the signed area of a triangle; the sign is the winding."""
    return (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)


@compiled
@no_type_check
def edge_functions(x0, y0, x1, y1, x2, y2, sign, x, y):
    """Twice the areas of the triangles that a pixel forms with each edge. All are >= 0 if the pixel is covered.

    Each area is computed from the two corners relative to the pixel. Swapping the corners negates it exactly, so two
    triangles never both miss a pixel on their shared edge. fastmath would break this. sign: of the winding.
    """
    dx0, dx1, dx2 = x0 - x, x1 - x, x2 - x
    dy0, dy1, dy2 = y0 - y, y1 - y, y2 - y
    return sign * (dx1 * dy2 - dx2 * dy1), sign * (dx2 * dy0 - dx0 * dy2), sign * (dx0 * dy1 - dx1 * dy0)


@compiled
@no_type_check
def extents(points, faces, height, width):
    """First and last row of each triangle; (0, -1) for a triangle that is not drawn."""
    tops, bottoms = np.zeros(len(faces), np.int32), np.full(len(faces), -1, np.int32)
    for f in range(len(faces)):
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = corners(points, faces, f)
        area = doubled_area(x0, y0, x1, y1, x2, y2)
        if not (z0 > NEAR and z1 > NEAR and z2 > NEAR) or not math.isfinite(area + z0 + z1 + z2) or area == 0.0:
            continue
        if max(x0, x1, x2) >= 0.0 and min(x0, x1, x2) <= width - 1.0:
            # Clamped before the conversion to an integer, which could overflow.
            tops[f] = int(min(max(0.0, math.ceil(min(y0, y1, y2))), float(height)))
            bottoms[f] = int(max(min(height - 1.0, math.floor(max(y0, y1, y2))), -1.0))
    return tops, bottoms


@compiled
@no_type_check
def cover(points, faces, f, top, bottom, start, bias, cutout, nearest, face):
    """Draw a triangle's rows from `top` to `bottom` into a band that starts at row `start`.

    nearest, face: biased depth and index of the visible triangle of each pixel; updated.
    """
    texture, uv, opaque = cutout
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = corners(points, faces, f)
    first, last = max(0.0, math.ceil(min(x0, x1, x2))), min(face.shape[1] - 1.0, math.floor(max(x0, x1, x2)))
    front = np.float32(min(z0, z1, z2) - bias[f])
    if _hidden(nearest[top - start : bottom - start, int(first) : int(last) + 1], front):
        return
    sign = 1.0 if doubled_area(x0, y0, x1, y1, x2, y2) > 0.0 else -1.0
    i0, i1, i2 = 1.0 / z0, 1.0 / z1, 1.0 / z2
    # Change of x per row along the three edges that are not horizontal.
    s0 = (x2 - x1) / (y2 - y1) if y2 != y1 else 0.0
    s1 = (x0 - x2) / (y0 - y2) if y0 != y2 else 0.0
    s2 = (x1 - x0) / (y1 - y0) if y1 != y0 else 0.0
    t = texture[f]
    for y in range(top, bottom):
        left, right = first, last
        # An edge that goes down limits the row on one side; an edge that goes up limits the other side.
        left, right = _within(left, right, x1, y1, y2, s0, sign, y)
        left, right = _within(left, right, x2, y2, y0, s1, sign, y)
        left, right = _within(left, right, x0, y0, y1, s2, sign, y)
        for x in range(math.ceil(left), math.floor(right) + 1):
            e0, e1, e2 = edge_functions(x0, y0, x1, y1, x2, y2, sign, x, y)
            if e0 < 0.0 or e1 < 0.0 or e2 < 0.0:
                continue
            w0, w1, w2 = e0 * i0, e1 * i1, e2 * i2
            total = w0 + w1 + w2
            z = (e0 + e1 + e2) / total
            key = np.float32(z - bias[f])
            # Of equally near triangles, the first is visible in any drawing order.
            row = y - start
            if not (key < nearest[row, x] or (key == nearest[row, x] and f < face[row, x])):
                continue
            if t >= 0 and not _is_opaque(opaque, uv, f, t, w0 / total, w1 / total, w2 / total):
                continue
            nearest[row, x] = key
            face[row, x] = f


@compiled
@no_type_check
def _is_opaque(opaque, uv, f, t, w0, w1, w2):
    u = w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]
    v = w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]
    rows, columns = opaque.shape[1], opaque.shape[2]
    row = min(int((1.0 - (v - math.floor(v))) * rows), rows - 1)
    column = min(int((u - math.floor(u)) * columns), columns - 1)
    return opaque[t, row, column]


@compiled
@no_type_check
def _within(left, right, x, y, end, step, sign, row):
    """Clip a row's span at the edge from (x, y) to the row `end`, whose x changes by `step` per row."""
    if end != y:
        x = x + (row - y) * step
        if (end > y) == (sign > 0.0):
            right = min(right, x + _SLACK)
        else:
            left = max(left, x - _SLACK)
    return left, right


@compiled
@no_type_check
def _hidden(nearest, depth):
    """Whether all pixels are nearer than a depth."""
    for row in range(nearest.shape[0]):
        for column in range(nearest.shape[1]):
            if nearest[row, column] >= depth:
                return False
    return True


@compiled
@no_type_check
def _fill(points, faces, bias, cutout, nearest, face):
    tops, bottoms = extents(points, faces, face.shape[0], face.shape[1])
    for f in range(len(faces)):
        if tops[f] <= bottoms[f]:
            cover(points, faces, f, tops[f], bottoms[f] + 1, 0, bias, cutout, nearest, face)


@compiled
@no_type_check
def _resolve(points, faces, face, depth, barycentric):
    """Compute depth and weights of the visible triangles."""
    for y in range(face.shape[0]):
        for x in range(face.shape[1]):
            f = face[y, x]
            if f < 0:
                continue
            x0, y0, z0, x1, y1, z1, x2, y2, z2 = corners(points, faces, f)
            sign = 1.0 if doubled_area(x0, y0, x1, y1, x2, y2) > 0.0 else -1.0
            e0, e1, e2 = edge_functions(x0, y0, x1, y1, x2, y2, sign, x, y)
            w0, w1, w2 = e0 * (1.0 / z0), e1 * (1.0 / z1), e2 * (1.0 / z2)
            total = w0 + w1 + w2
            depth[y, x] = (e0 + e1 + e2) / total
            barycentric[y, x, 0] = w0 / total
            barycentric[y, x, 1] = w1 / total
            barycentric[y, x, 2] = w2 / total
