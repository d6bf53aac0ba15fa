"""Draws meshes in soft light with smooth edges: several samples per pixel, in bands that fit the processor's cache.

Compiled functions have many parameters because numba does not compile dataclasses.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int

from i2l_meshnet.compiling import compiled
from i2l_meshnet.rendering.raster import corners, cover, doubled_area, edge_functions, extents, plain
from i2l_meshnet.rendering.shading import Lighting, light_on

LIGHTING = Lighting.white(0.34, {(-0.5, -0.75, -0.6): 0.45, (0.8, -0.1, -0.5): 0.2, (0.0, 0.0, -1.0): 0.12})
"""Directions in the frame of the view."""
_BAND = 48
"""Rows of samples in a band."""


def draw_lit(
    points: Float32[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    normals: Float32[np.ndarray, "v 3"],
    colors: Float32[np.ndarray, "f 3"],
    size: tuple[int, int],
    samples: int,
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Draw meshes. Returns each pixel's colour (`colors` times light times coverage) and coverage.

    points: x and y in samples (integers are sample centres), `samples` along each side of a pixel; z in metres along
    the optical axis. size: of the picture, (height, width) in pixels. Coverage and visibility are as in
    `raster.rasterize`. Surfaces that face away from the viewer are darker. Both sides of a surface are lit alike.
    """
    color, alpha = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    triangles = faces.astype(np.int32)
    # Nearest first: hidden triangles are then skipped early.
    order = np.argsort(points[triangles, 2].min(1), kind="stable").astype(np.int32)
    lighting = (LIGHTING.ambient, LIGHTING.directions, LIGHTING.colours)
    _draw(points, triangles, order, *plain(len(faces)), normals, colors, samples, lighting, color, alpha)
    return color, alpha


@compiled
@no_type_check  # the jaxtyping import hook must not wrap compiled functions
def _draw(points, faces, order, bias, cutout, normals, colors, samples, lighting, color, alpha):
    height, width = alpha.shape[0] * samples, alpha.shape[1] * samples
    rows = max(1, _BAND // samples) * samples
    nearest, face = np.empty((rows, width), np.float32), np.empty((rows, width), np.int32)
    tops, bottoms = extents(points, faces, height, width)
    for start in range(0, height, rows):
        end = min(start + rows, height)
        nearest[:] = np.inf
        face[:] = -1
        for f in order:
            if tops[f] < end and bottoms[f] >= start:
                cover(
                    points, faces, f, max(tops[f], start), min(bottoms[f] + 1, end), start, bias, cutout, nearest, face
                )
        _shade(points, faces, face[: end - start], start, normals, colors, samples, lighting, color, alpha)


@compiled
@no_type_check
def _shade(points, faces, face, start, normals, colors, samples, lighting, color, alpha):
    """Add the samples of a band, which starts at row `start`, to the pixels."""
    ambient, directions, lights = lighting
    share = np.float32(1.0 / (samples * samples))
    last = -1
    for row in range(face.shape[0]):
        y = (start + row) // samples
        x, end = 0, samples
        for column in range(face.shape[1]):
            f = face[row, column]
            if f < 0:
                continue
            if f != last:  # Neighbouring samples mostly show the same triangle.
                last = f
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                x0, y0, z0, x1, y1, z1, x2, y2, z2 = corners(points, faces, f)
                i0, i1, i2 = 1.0 / z0, 1.0 / z1, 1.0 / z2
                sign = 1.0 if doubled_area(x0, y0, x1, y1, x2, y2) > 0.0 else -1.0
                nx0, ny0, nz0 = normals[a, 0], normals[a, 1], normals[a, 2]
                nx1, ny1, nz1 = normals[b, 0], normals[b, 1], normals[b, 2]
                nx2, ny2, nz2 = normals[c, 0], normals[c, 1], normals[c, 2]
            e0, e1, e2 = edge_functions(x0, y0, x1, y1, x2, y2, sign, column, start + row)
            w0, w1, w2 = e0 * i0, e1 * i1, e2 * i2
            total = w0 + w1 + w2
            w0, w1, w2 = np.float32(w0 / total), np.float32(w1 / total), np.float32(w2 / total)
            nx = w0 * nx0 + w1 * nx1 + w2 * nx2
            ny = w0 * ny0 + w1 * ny1 + w2 * ny2
            nz = w0 * nz0 + w1 * nz1 + w2 * nz2
            scale = np.float32(1) / max(np.float32(math.sqrt(nx * nx + ny * ny + nz * nz)), np.float32(1e-9))
            if nz > 0:
                scale = -scale
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            light = light_on(nx, ny, nz, ambient, directions, lights)
            facing = share * (np.float32(0.72) - np.float32(0.42) * nz)
            while column >= end:  # Faster than a division.
                x, end = x + 1, end + samples
            alpha[y, x] += share
            for k in range(3):
                color[y, x, k] += colors[f, k] * (light[k] * facing)
