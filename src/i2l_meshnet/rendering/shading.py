"""Lights rasterised meshes: smooth normals, textures, ambient and directional lights, antialiasing.

Compiled functions have many parameters because numba does not compile dataclasses.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import no_type_check

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from i2l_meshnet.compiling import compiled
from i2l_meshnet.rendering.raster import RasterBuffers, rasterize


@dataclasses.dataclass(frozen=True)
class Lighting:
    """Lights in the camera's frame (x right, y down, z forward), with a strength per colour channel; 1 is full.

    ambient: light from all directions. directions: unit vectors from the scene towards each light. colours: strength
    of each directional light on a surface that faces it.
    """

    ambient: Float32[np.ndarray, "3"]
    directions: Float32[np.ndarray, "l 3"]
    colours: Float32[np.ndarray, "l 3"]

    @staticmethod
    def white(ambient: float, lights: Mapping[tuple[float, float, float], float]) -> "Lighting":
        """White lights. lights: direction towards each light (of any length) → its strength."""
        directions = np.array([*lights], np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        colours = np.repeat(np.array([*lights.values()], np.float32)[:, None], 3, 1)
        return Lighting(np.full(3, ambient, np.float32), directions, colours)

    @staticmethod
    def studio() -> "Lighting":
        """A key light from behind the camera, above left; a fill light from the right."""
        return Lighting.white(0.32, {(-0.5, -0.6, -0.8): 0.62, (0.8, -0.1, -0.6): 0.25})


@dataclasses.dataclass(frozen=True)
class Textures:
    """Textures of a mesh.

    pictures: all of the same size, row 0 at the top (v = 1), repeated outside [0, 1]. uv: texture coordinates of each
    triangle's corners. index: each triangle's picture.
    """

    pictures: Float32[np.ndarray, "t th tw 3"]
    uv: Float32[np.ndarray, "f 3 2"]
    index: Int32[np.ndarray, "f"]


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float32[np.ndarray, "v 3"]:
    """Unit normals: area-weighted means of the adjacent triangles' normals; zero for a vertex without area."""
    return _normals(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))


def shade(
    buffers: RasterBuffers,
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    paint: Float[np.ndarray, "v 3"] | Textures,
    lighting: Lighting,
    factor: int = 1,
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Colour (paint times light, not clipped) and coverage of each pixel, `factor` times smaller than the buffers.

    vertices: in the camera's frame, metres, before the projection for `rasterize`. paint: colours of the vertices,
    interpolated over the surface, or textures. The side that faces the camera is lit, also the back of a triangle (the
    inside of a sleeve). A pixel is the mean of `factor` x `factor` samples; empty samples are 0.
    """
    size = (buffers.face.shape[0] // factor, buffers.face.shape[1] // factor)
    picture, coverage = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    colours = np.zeros((1, 3), np.float32)
    if not isinstance(paint, Textures):
        colours = np.ascontiguousarray(paint)
        none = np.full(len(faces), -1, np.int32)
        paint = Textures(np.zeros((1, 1, 1, 3), np.float32), np.zeros((len(faces), 3, 2), np.float32), none)
    _shade(
        (buffers.face, buffers.barycentric, np.ascontiguousarray(vertices, np.float32)),
        np.ascontiguousarray(faces, np.int32),
        vertex_normals(vertices, faces),
        colours,
        (np.ascontiguousarray(paint.pictures), paint.uv, paint.index),
        (lighting.ambient, lighting.directions, lighting.colours),
        factor,
        picture,
        coverage,
    )
    return picture, coverage


def render_meshes(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    focal: tuple[float, float],
    center: tuple[float, float],
    size: tuple[int, int],
    colours: Float[np.ndarray, "v 3"],
    supersample: int = 2,
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Render meshes with vertex colours. Returns the picture and the coverage, both in [0, 1].

    vertices: in the camera's frame, metres; several meshes are concatenated. focal, center: pixels of the picture.
    size: (height, width). colours: RGB in [0, 1]. The picture is premultiplied by the coverage: blend it with
    `photo * (1 - coverage) + picture`.
    """
    height, width = size
    points = project(vertices, focal, center, supersample)
    buffers = rasterize(points, faces, (height * supersample, width * supersample))
    picture, coverage = shade(buffers, vertices, faces, colours, Lighting.studio())
    return _means(np.minimum(picture, 1), size), _means(coverage, size)


def _means(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean of each pixel's block of samples."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA)


def project(
    vertices: Float[np.ndarray, "v 3"],
    focal: tuple[float, float],
    center: tuple[float, float],
    supersample: int = 1,
) -> Float32[np.ndarray, "v 3"]:
    """Points for `rasterize` (x px, y px, z metres) from camera-frame vertices (metres).

    supersample: samples along each side of a pixel. With s samples, the centre of pixel 0 is at (s - 1) / 2. Vertices
    behind the camera keep their z, so `rasterize` skips them.
    """
    z = vertices[:, 2:].astype(np.float64)
    depth = np.where(z > 1e-6, z, 1.0)
    xy = vertices[:, :2] / depth * np.asarray(focal) + np.asarray(center)
    xy = (xy + 0.5) * supersample - 0.5
    return np.concatenate([xy, z], 1).astype(np.float32)


@compiled
@no_type_check  # the jaxtyping import hook must not wrap compiled functions
def _normals(vertices, faces):
    result = np.zeros(vertices.shape, np.float32)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            result[corner, 0] += nx
            result[corner, 1] += ny
            result[corner, 2] += nz
    for v in range(result.shape[0]):
        length = math.sqrt(result[v, 0] ** 2 + result[v, 1] ** 2 + result[v, 2] ** 2)
        if length > 0.0:
            for k in range(3):
                result[v, k] /= length
    return result


@compiled
@no_type_check
def _texture_colour(textures, t, uv, f, w0, w1, w2):
    """Bilinear RGB of a texture at a point of triangle f."""
    rows, columns = textures.shape[1], textures.shape[2]
    u = w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]
    v = w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]
    column, row = u * columns - 0.5, (1.0 - v) * rows - 0.5
    left, top = math.floor(column), math.floor(row)
    right_part, bottom_part = column - left, row - top
    # Python's remainder of a negative number is positive: coordinates repeat.
    c0, r0 = int(left) % columns, int(top) % rows
    c1, r1 = (c0 + 1) % columns, (r0 + 1) % rows
    a, b = (1 - right_part) * (1 - bottom_part), right_part * (1 - bottom_part)
    c, d = (1 - right_part) * bottom_part, right_part * bottom_part
    upper_left, upper_right = textures[t, r0, c0], textures[t, r0, c1]
    lower_left, lower_right = textures[t, r1, c0], textures[t, r1, c1]
    return (
        a * upper_left[0] + b * upper_right[0] + c * lower_left[0] + d * lower_right[0],
        a * upper_left[1] + b * upper_right[1] + c * lower_left[1] + d * lower_right[1],
        a * upper_left[2] + b * upper_right[2] + c * lower_left[2] + d * lower_right[2],
    )


@compiled
@no_type_check
def light_on(nx, ny, nz, ambient, directions, colours):
    """RGB of the light on a surface with the unit normal (nx, ny, nz)."""
    red, green, blue = ambient[0], ambient[1], ambient[2]
    for i in range(directions.shape[0]):
        cosine = nx * directions[i, 0] + ny * directions[i, 1] + nz * directions[i, 2]
        if cosine > 0:
            red += cosine * colours[i, 0]
            green += cosine * colours[i, 1]
            blue += cosine * colours[i, 2]
    return red, green, blue


@compiled
@no_type_check
def _normal(vertices, faces, normals, f, w0, w1, w2):
    """The unit normal at a point of triangle f, on the side that faces the camera."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
    ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
    nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if length > 0.0:
        nx, ny, nz = nx / length, ny / length, nz / length
    # The sign of the triangle's normal times the camera ray gives the visible side.
    ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
    ux, uy, uz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
    vx, vy, vz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
    seen = ax * (uy * vz - uz * vy) + ay * (uz * vx - ux * vz) + az * (ux * vy - uy * vx)
    if seen > 0.0:
        return -nx, -ny, -nz
    return nx, ny, nz


@compiled
@no_type_check
def _shade(seen, faces, normals, colours, paint, lighting, factor, picture, coverage):
    face, barycentric, vertices = seen
    textures, uv, texture = paint
    ambient, directions, lights = lighting
    share = 1.0 / (factor * factor)
    for y in range(coverage.shape[0] * factor):
        for x in range(coverage.shape[1] * factor):
            f = face[y, x]
            if f < 0:
                continue
            w0, w1, w2 = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
            nx, ny, nz = _normal(vertices, faces, normals, f, w0, w1, w2)
            light = light_on(nx, ny, nz, ambient, directions, lights)
            row, column = y // factor, x // factor
            coverage[row, column] += share
            if texture[f] >= 0:
                colour = _texture_colour(textures, texture[f], uv, f, w0, w1, w2)
                for k in range(3):
                    picture[row, column, k] += share * colour[k] * light[k]
            else:
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                for k in range(3):
                    colour_k = np.float32(w0 * colours[a, k] + w1 * colours[b, k] + w2 * colours[c, k])
                    picture[row, column, k] += share * colour_k * light[k]
