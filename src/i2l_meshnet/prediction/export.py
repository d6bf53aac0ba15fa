"""Mesh files: OBJ, PLY and GLB."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import no_type_check

import numpy as np
import trimesh
from jaxtyping import Float, Float32, Int
from numba import njit
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from i2l_meshnet.errors import InputError
from i2l_meshnet.files import atomic_path
from i2l_meshnet.geometry.gltf import CAMERA_TO_GLTF, SKIN_COLOUR, SKIN_ROUGHNESS, one_index
from i2l_meshnet.rendering.shading import vertex_normals


@dataclasses.dataclass(frozen=True)
class Surface:
    """A triangle mesh in the camera frame, metres; faces are counter-clockwise seen from outside.

    uv: texture coordinates, v upwards, and face_uv: the three of each face; None where the mesh has none.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "t 2"] | None = None
    face_uv: Int[np.ndarray, "f 3"] | None = None

    @functools.cached_property
    def normals(self) -> Float32[np.ndarray, "v 3"]:
        """Unit vertex normals, outward: the mean of the face normals weighted by area; 0 for a vertex without area."""
        return vertex_normals(self.vertices, self.faces)


def write_surface(surface: Surface, path: Path) -> None:
    """Writes a mesh in the format of the path's ending: .obj or .ply in the camera frame, .glb in glTF's frame.

    Raises InputError for another ending, FileError if the file cannot be written.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"cannot write a mesh as {path.name}; known endings: {', '.join(_WRITERS)}")
    data = writer(surface)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_scene(surfaces: Sequence[Surface], colors: Sequence[Sequence[int]], path: Path) -> None:
    """Writes several meshes, each in its colour (sRGB, 0 to 255), to one .glb file in glTF's frame.

    Raises FileError if the file cannot be written.
    """
    linear = [[round(255 * (value / 255) ** 2.2) for value in color] for color in colors]  # as glTF has it
    scene = trimesh.Scene([_gltf_mesh(surface, color) for surface, color in zip(surfaces, linear, strict=True)])
    with atomic_path(path) as temporary:
        temporary.write_bytes(_bytes(scene.export(file_type="glb", include_normals=True)))


def _obj(surface: Surface) -> bytes:
    title = f"# i2l-meshnet {version('i2l-meshnet')}; metres; camera frame: x right, y down, z forward\n"
    parts = [title.encode(), _rows("v", surface.vertices, "  \n", 6)]
    if surface.uv is None or surface.face_uv is None:
        parts.append(_rows("f", surface.faces + 1, "  \n"))
    else:
        corners = np.stack([surface.faces, surface.face_uv], -1) + 1
        parts += [_rows("vt", surface.uv, " \n", 6), _rows("f", corners.reshape(-1, 6), "/ / /\n")]
    return b"".join(parts)


def _rows(head: str, values: np.ndarray, separators: str, decimals: int = 0) -> bytes:
    """A line for each row of `values`: `head`, a blank, then each value and what separates it from the next."""
    scaled = np.rint(values * 10.0**decimals).astype(np.int64)
    start, between = (np.frombuffer(text.encode(), np.uint8) for text in (f"{head} ", separators))
    return _print_rows(start, scaled, between, decimals).tobytes()


@njit(cache=True, nogil=True)
@no_type_check  # the jaxtyping import hook must leave compiled functions alone
def _print_rows(start, values, separators, decimals):
    """The bytes of `_rows`, compiled: a sixth of the time of Python's formatting, and other threads go on meanwhile."""
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
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, vertex_normals=surface.normals, process=False)
    return _bytes(mesh.export(file_type="ply", vertex_normal=True))


def _glb(surface: Surface) -> bytes:
    mesh = _gltf_mesh(surface, SKIN_COLOUR if surface.uv is not None else None)
    return _bytes(trimesh.Scene(mesh).export(file_type="glb", include_normals=True))


def _gltf_mesh(surface: Surface, color: Sequence[int] | None) -> trimesh.Trimesh:
    """A mesh in glTF's frame, with a material of the colour, or trimesh's grey if None."""
    vertices, normals = surface.vertices * CAMERA_TO_GLTF, surface.normals * CAMERA_TO_GLTF
    faces, uv = surface.faces, None
    if surface.uv is not None and surface.face_uv is not None:
        faces, of_vertex, of_uv = one_index(surface.faces, surface.uv, surface.face_uv)
        vertices, normals = vertices[of_vertex], normals[of_vertex]
        uv = surface.uv[of_uv]
    visual = None
    if color is not None:
        material = PBRMaterial(
            name="skin", baseColorFactor=[*color, 255], metallicFactor=0.0, roughnessFactor=SKIN_ROUGHNESS
        )
        visual = TextureVisuals(uv=uv, material=material)
    return trimesh.Trimesh(vertices, faces, vertex_normals=normals, visual=visual, process=False)


def _bytes(exported: object) -> bytes:
    if not isinstance(exported, bytes):
        raise TypeError(f"expected bytes from the mesh writer, got {type(exported).__name__}")
    return exported


_WRITERS: dict[str, Callable[[Surface], bytes]] = {".obj": _obj, ".ply": _ply, ".glb": _glb}
