"""Light on rasterised meshes: smooth normals, textures, ambient and directional lights, antialiasing."""

import dataclasses
import math
from typing import no_type_check

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from i2l_meshnet.compiling import compiled
from i2l_meshnet.rendering.raster import RasterBuffers, rasterize


@dataclasses.dataclass(frozen=True)
class Lighting:
    """Lights in the camera's frame (x right, y down, z forward), strengths per colour channel, 1 = full.

    ambient: light from everywhere. directions: unit vectors from the scene towards each light. colours: strength
    of each directional light where it falls on squarely.
    """

    ambient: Float32[np.ndarray, "3"]
    directions: Float32[np.ndarray, "l 3"]
    colours: Float32[np.ndarray, "l 3"]

    @staticmethod
    def studio() -> "Lighting":
        """A key light from above left behind the camera, a fill light from the right: for overlays."""
        directions = np.array([[-0.5, -0.6, -0.8], [0.8, -0.1, -0.6]], np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        colours = np.array([[0.62] * 3, [0.25] * 3], np.float32)
        return Lighting(np.full(3, 0.32, np.float32), directions, colours)


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float32[np.ndarray, "v 3"]:
    """Unit normals: the area-weighted mean of the adjacent triangles'; zero for a vertex without area."""
    return _normals(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))


def interpolate(
    buffers: RasterBuffers, faces: Int[np.ndarray, "f 3"], values: Float[np.ndarray, "v c"]
) -> Float32[np.ndarray, "h w c"]:
    """Values at the vertices (colours, positions), interpolated over the visible surface; 0 where nothing is."""
    result = np.zeros((*buffers.face.shape, values.shape[1]), np.float32)
    mask = buffers.mask
    corners = values[faces[buffers.face[mask]]]
    result[mask] = (corners * buffers.barycentric[mask][..., None]).sum(1)
    return result


def sample_textures(
    buffers: RasterBuffers,
    textures: Float32[np.ndarray, "t th tw 3"],
    uv: Float32[np.ndarray, "f 3 2"],
    texture: Int32[np.ndarray, "f"],
) -> Float32[np.ndarray, "h w 3"]:
    """Colours of textures over the visible surface, bilinear; 0 where nothing is.

    textures: all of one size, row 0 at the top (v = 1), repeated outside [0, 1]. uv: texture coordinates of each
    triangle's corners. texture: which texture a triangle wears.
    """
    result = np.zeros((*buffers.face.shape, 3), np.float32)
    _sample(buffers.face, buffers.barycentric, np.ascontiguousarray(textures), uv, texture, result)
    return result


def shade(
    buffers: RasterBuffers,
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    normals: Float32[np.ndarray, "v 3"],
    albedo: Float32[np.ndarray, "h w 3"],
    lighting: Lighting,
) -> Float32[np.ndarray, "h w 3"]:
    """Colour of each pixel: albedo times the light that falls on it, not clipped; 0 where nothing is.

    vertices: in the camera's frame, metres, as they were projected for `rasterize`. normals: see `vertex_normals`.
    albedo: from `interpolate` or `sample_textures`, or one colour broadcast. Triangles seen from behind (the
    inside of a sleeve) are lit as their back.
    """
    result = np.zeros((*buffers.face.shape, 3), np.float32)
    _shade(
        buffers.face,
        buffers.barycentric,
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        normals,
        albedo,
        lighting.ambient,
        lighting.directions,
        lighting.colours,
        result,
    )
    return result


def shade_textured(
    buffers: RasterBuffers,
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    textures: Float32[np.ndarray, "t th tw 3"],
    uv: Float32[np.ndarray, "f 3 2"],
    texture: Int32[np.ndarray, "f"],
    lighting: Lighting,
    factor: int,
) -> tuple[Float32[np.ndarray, "h2 w2 3"], Float32[np.ndarray, "h2 w2"]]:
    """Textured meshes, lit, and their coverage, `factor` times smaller than the buffers: one pass, nothing kept.

    What `sample_textures`, `shade` and `reduce` give one after the other.
    """
    size = (buffers.face.shape[0] // factor, buffers.face.shape[1] // factor)
    picture, coverage = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    _shade_textured(
        buffers.face,
        buffers.barycentric,
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        vertex_normals(vertices, faces),
        np.ascontiguousarray(textures),
        uv,
        texture,
        lighting.ambient,
        lighting.directions,
        lighting.colours,
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
    lighting: Lighting | None = None,
    supersample: int = 2,
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Renders meshes with plain vertex colours: picture in [0, 1] and coverage in [0, 1].

    vertices: in the camera's frame, metres; several people are concatenated (with their faces shifted) and
    occlude each other rightly. focal, center: pixels of the picture. size: (height, width). colours: RGB in
    [0, 1]. The picture is premultiplied by the coverage: lay it over a photo as `photo * (1 - coverage) + picture`.
    """
    height, width = size
    points = project(vertices, focal, center, supersample)
    buffers = rasterize(points, faces, (height * supersample, width * supersample))
    normals = vertex_normals(vertices, faces)
    albedo = interpolate(buffers, faces, colours)
    picture = shade(buffers, vertices, faces, normals, albedo, lighting or Lighting.studio())
    coverage = buffers.mask.astype(np.float32)[..., None]
    return reduce(np.minimum(picture, 1), supersample), reduce(coverage, supersample)[..., 0]


def project(
    vertices: Float[np.ndarray, "v 3"],
    focal: tuple[float, float],
    center: tuple[float, float],
    supersample: int = 1,
) -> Float32[np.ndarray, "v 3"]:
    """Points for `rasterize` (x px, y px, z metres) of camera-frame vertices (metres).

    With `supersample` s, in a picture whose pixels are s times smaller: the centre of pixel 0 of the plain
    picture lies at (s - 1) / 2. Vertices behind the camera keep their z and are not drawn.
    """
    z = vertices[:, 2:].astype(np.float64)
    depth = np.where(z > 1e-6, z, 1.0)
    xy = vertices[:, :2] / depth * np.asarray(focal) + np.asarray(center)
    xy = (xy + 0.5) * supersample - 0.5
    return np.concatenate([xy, z], 1).astype(np.float32)


def reduce(picture: Float32[np.ndarray, "h w c"], factor: int) -> Float32[np.ndarray, "h2 w2 c"]:
    """The mean of each block of `factor` × `factor` pixels; both sides are multiples of it."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)


@compiled
@no_type_check  # the jaxtyping import hook must leave compiled functions alone
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
    """Red, green, blue of a texture at a point of triangle f, bilinear."""
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
def _light(vertices, faces, normals, f, w0, w1, w2, ambient, directions, colours):
    """Red, green, blue of the light that falls on a point of triangle f."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
    ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
    nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if length > 0.0:
        nx, ny, nz = nx / length, ny / length, nz / length
    # The triangle's own normal against the ray to it tells which side is seen.
    ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
    ux, uy, uz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
    vx, vy, vz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
    seen = ax * (uy * vz - uz * vy) + ay * (uz * vx - ux * vz) + az * (ux * vy - uy * vx)
    if seen > 0.0:
        nx, ny, nz = -nx, -ny, -nz
    red, green, blue = ambient[0], ambient[1], ambient[2]
    for i in range(directions.shape[0]):
        cosine = nx * directions[i, 0] + ny * directions[i, 1] + nz * directions[i, 2]
        if cosine > 0.0:
            red += cosine * colours[i, 0]
            green += cosine * colours[i, 1]
            blue += cosine * colours[i, 2]
    return red, green, blue


@compiled
@no_type_check
def _sample(face, barycentric, textures, uv, texture, result):
    for y in range(face.shape[0]):
        for x in range(face.shape[1]):
            f = face[y, x]
            if f >= 0:
                w0, w1, w2 = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
                colour = _texture_colour(textures, texture[f], uv, f, w0, w1, w2)
                for k in range(3):
                    result[y, x, k] = colour[k]


@compiled
@no_type_check
def _shade(face, barycentric, vertices, faces, normals, albedo, ambient, directions, colours, result):
    for y in range(face.shape[0]):
        for x in range(face.shape[1]):
            f = face[y, x]
            if f >= 0:
                w0, w1, w2 = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
                light = _light(vertices, faces, normals, f, w0, w1, w2, ambient, directions, colours)
                for k in range(3):
                    result[y, x, k] = albedo[y, x, k] * light[k]


@compiled
@no_type_check
def _shade_textured(
    face,
    barycentric,
    vertices,
    faces,
    normals,
    textures,
    uv,
    texture,
    ambient,
    directions,
    colours,
    factor,
    picture,
    coverage,
):
    share = 1.0 / (factor * factor)
    for y in range(coverage.shape[0] * factor):
        for x in range(coverage.shape[1] * factor):
            f = face[y, x]
            if f >= 0:
                w0, w1, w2 = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
                red, green, blue = _texture_colour(textures, texture[f], uv, f, w0, w1, w2)
                light = _light(vertices, faces, normals, f, w0, w1, w2, ambient, directions, colours)
                row, column = y // factor, x // factor
                picture[row, column, 0] += share * red * light[0]
                picture[row, column, 1] += share * green * light[1]
                picture[row, column, 2] += share * blue * light[2]
                coverage[row, column] += share
