"""Writes mesh files: OBJ, PLY and GLB."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Float32, Int

from i2l_meshnet.animation.gltf import (
    CAMERA_TO_GLTF,
    SKIN_COLOUR,
    GlbBuffer,
    generator,
    one_index,
    skin,
)
from i2l_meshnet.compiling import compiled
from i2l_meshnet.errors import InputError
from i2l_meshnet.io import write_bytes
from i2l_meshnet.rendering.shading import vertex_normals


@dataclasses.dataclass(frozen=True)
class Surface:
    """A triangle mesh in the camera frame, metres. Faces are counter-clockwise seen from outside.

    uv: texture coordinates, v upwards, or None. face_uv: rows of `uv` of each face's corners.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "t 2"] | None = None
    face_uv: Int[np.ndarray, "f 3"] | None = None

    @functools.cached_property
    def normals(self) -> Float32[np.ndarray, "v 3"]:
        """Outward unit vertex normals: means of the face normals, weighted by area; 0 for a vertex without area."""
        return vertex_normals(self.vertices, self.faces)


def write_surface(surface: Surface, path: Path) -> None:
    """Write a mesh as .obj or .ply (camera frame) or .glb (glTF's frame), by the suffix of the path.

    Raises InputError for another suffix, FileError if the file cannot be written.
    """
    if path.suffix.lower() not in ENCODERS:
        raise InputError(f"cannot write a mesh as {path.name}; known suffixes: {', '.join(ENCODERS)}")
    write_bytes(path, ENCODERS[path.suffix.lower()](surface))


def write_scene(surfaces: Sequence[Surface], colors: Sequence[Sequence[int]], path: Path) -> None:
    """Write several meshes, each with a colour (sRGB, 0 to 255), to one .glb file in glTF's frame.

    Raises FileError if the file cannot be written.
    """
    linear = [[255 * (value / 255) ** 2.2 for value in color] for color in colors]  # glTF's colour space
    write_bytes(path, _glb_of(surfaces, linear))


def _obj(surface: Surface) -> bytes:
    title = f"# {generator()}; metres; camera frame: x right, y down, z forward\n"
    parts = [title.encode(), _rows("v", surface.vertices, "  \n", 6)]
    if surface.uv is None or surface.face_uv is None:
        parts.append(_rows("f", surface.faces + 1, "  \n"))
    else:
        corners = np.stack([surface.faces, surface.face_uv], -1) + 1
        parts += [_rows("vt", surface.uv, " \n", 6), _rows("f", corners.reshape(-1, 6), "/ / /\n")]
    return b"".join(parts)


def _rows(head: str, values: np.ndarray, separators: str, decimals: int = 0) -> bytes:
    """A line for each row: `head`, a space, then each value followed by its separator."""
    scaled = np.rint(values * 10.0**decimals).astype(np.int64)
    start, between = (np.frombuffer(text.encode(), np.uint8) for text in (f"{head} ", separators))
    return _print_rows(start, scaled, between, decimals).tobytes()


@compiled
@no_type_check  # the jaxtyping import hook must not wrap compiled functions
def _print_rows(start, values, separators, decimals):
    """The bytes of `_rows`. Compiled, it takes a sixth of the time of Python's formatting and releases the GIL."""
    text = np.empty(len(values) * (len(start) + values.shape[1] * 23), np.uint8)
    size = 0
    for row in values:
        text[size : size + len(start)] = start
        size += len(start)
        for column in range(len(row)):
            value = row[column]
            if value < 0:
                text[size] = 45  # -
                size += 1
                value = -value
            digits, rest = 1, value // 10
            while rest > 0:
                digits, rest = digits + 1, rest // 10
            digits = max(digits, decimals + 1)
            end = size + digits + (decimals > 0)
            at = end - 1
            for digit in range(digits):
                if digit == decimals and decimals > 0:
                    text[at] = 46  # .
                    at -= 1
                text[at] = 48 + value % 10
                value //= 10
                at -= 1
            text[end] = separators[column]
            size = end + 1
    return text[:size]


def _ply(surface: Surface) -> bytes:
    vertices = np.concatenate([surface.vertices, surface.normals], 1).astype("<f4")
    faces = np.empty(len(surface.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, surface.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {generator()}; metres; camera frame: x right, y down, z forward",
        f"element vertex {len(vertices)}",
        *(f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _glb(surface: Surface) -> bytes:
    return _glb_of([surface], [None if surface.uv is None else SKIN_COLOUR])


def _glb_of(surfaces: Sequence[Surface], colors: Sequence[Sequence[float] | None]) -> bytes:
    """A scene with one node per mesh. colors: of the materials, linear, 0 to 255; None: no material."""
    buffer = GlbBuffer()
    materials = [skin(color) for color in colors if color is not None]
    meshes, used = [], 0
    for surface, color in zip(surfaces, colors, strict=True):
        primitive = _primitive(buffer, surface)
        if color is not None:
            primitive["material"], used = used, used + 1
        meshes.append({"name": f"mesh_{len(meshes)}", "primitives": [primitive]})
    gltf: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": generator()},
        "scene": 0,
        "scenes": [{"nodes": [*range(len(meshes))]}],
        "nodes": [{"name": mesh["name"], "mesh": index} for index, mesh in enumerate(meshes)],
        "meshes": meshes,
    }
    return buffer.glb(gltf | ({"materials": materials} if materials else {}))


def _primitive(buffer: GlbBuffer, surface: Surface) -> dict[str, Any]:
    """Add a mesh to the buffer, in glTF's frame."""
    vertices, normals, faces = surface.vertices * CAMERA_TO_GLTF, surface.normals * CAMERA_TO_GLTF, surface.faces
    uv = None
    if surface.uv is not None and surface.face_uv is not None:
        faces, of_vertex, of_uv = one_index(surface.faces, surface.uv, surface.face_uv)
        vertices, normals, uv = vertices[of_vertex], normals[of_vertex], surface.uv[of_uv]
    return {"attributes": buffer.attributes(vertices, normals, uv), "indices": buffer.triangles(faces)}


ENCODERS: dict[str, Callable[[Surface], bytes]] = {".obj": _obj, ".ply": _ply, ".glb": _glb}
"""Suffix of a mesh file → the function that encodes it."""
