"""glTF 2.0: its frame, meshes with one index per vertex and texture coordinate, and the binary file (GLB).

Source of the format: Khronos, "glTF 2.0 Specification", sections 3.7 (meshes), 3.9 (materials), 4 (GLB).
"""

import functools
import json
import struct
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float, Int

CAMERA_TO_GLTF = np.array([1.0, -1.0, -1.0])
"""Camera frame (x right, y down, z forward) to glTF's (y up, z towards the viewer): 180° about x."""

SKIN_COLOUR = (215.0, 190.0, 170.0)
"""Red, green and blue of the bodies' material, 0 to 255."""

SKIN_ROUGHNESS = 0.8

VERTICES, TRIANGLES = 34962, 34963
"""Targets of buffers: attributes of vertices, indices of triangles."""
_TYPES = {
    np.dtype(np.float32): 5126,
    np.dtype(np.uint8): 5121,
    np.dtype(np.uint16): 5123,
    np.dtype(np.uint32): 5125,
}


def one_index(
    faces: Int[np.ndarray, "f 3"], uv: Float[np.ndarray, "t 2"], face_uv: Int[np.ndarray, "f 3"]
) -> tuple[Int[np.ndarray, "f 3"], Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
    """Duplicate the vertices on seams, one for each texture coordinate.

    Returns faces over P pairs, and the vertex and the texture coordinate of each pair.
    """
    pairs = faces.ravel().astype(np.int64) * len(uv) + face_uv.ravel()
    unique, inverse = np.unique(pairs, return_inverse=True)
    of_vertex, of_uv = np.divmod(unique, len(uv))
    return inverse.reshape(-1, 3), of_vertex, of_uv


@functools.cache  # reading a package's metadata takes a millisecond
def generator() -> str:
    """The software named in files."""
    return f"i2l-meshnet {version('i2l-meshnet')}"


def skin(color: Sequence[float] = SKIN_COLOUR) -> dict[str, Any]:
    """A matte material. color: red, green and blue, 0 to 255."""
    return {
        "name": "skin",
        "pbrMetallicRoughness": {
            "baseColorFactor": [*(value / 255 for value in color), 1],
            "metallicFactor": 0,
            "roughnessFactor": SKIN_ROUGHNESS,
        },
    }


class GlbBuffer:
    """The binary part of a GLB file, and the accessors into it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []

    def add(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Store rows of values (floats as float32) and return the number of the accessor.

        target: of the buffer. bounds: add the minimum and maximum, which glTF requires for some accessors.
        """
        if values.dtype.kind == "f":
            values = values.astype(np.float32)
        width = 1 if values.ndim == 1 else values.shape[1]
        view = {"buffer": 0, "byteOffset": len(self._data), "byteLength": values.nbytes}
        self._views.append(view | ({} if target is None else {"target": target}))
        accessor: dict[str, Any] = {
            "bufferView": len(self._views) - 1,
            "componentType": _TYPES[values.dtype],
            "count": len(values),
            "type": {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[width],
        }
        if bounds:
            rows = values.reshape(len(values), -1)
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self._accessors.append(accessor)
        self._data += values.tobytes()
        self._data += bytes(-len(self._data) % 4)
        return len(self._accessors) - 1

    def attributes(
        self, vertices: Float[np.ndarray, "p 3"], normals: Float[np.ndarray, "p 3"], uv: Float[np.ndarray, "p 2"] | None
    ) -> dict[str, int]:
        """Store vertices, normals and texture coordinates (v up) as the attributes of a mesh."""
        attributes = {
            "POSITION": self.add(vertices, VERTICES, bounds=True),
            "NORMAL": self.add(normals, VERTICES),
        }
        if uv is not None:
            attributes["TEXCOORD_0"] = self.add(uv * (1, -1) + (0, 1), VERTICES)
        return attributes

    def triangles(self, faces: Int[np.ndarray, "f 3"]) -> int:
        """Store triangles as the indices of a mesh."""
        return self.add(faces.astype(np.uint32).reshape(-1), TRIANGLES)

    def glb(self, gltf: dict[str, Any]) -> bytes:
        """The file of this buffer and a glTF document that uses its accessors."""
        document = gltf | {
            "buffers": [{"byteLength": len(self._data)}],
            "bufferViews": self._views,
            "accessors": self._accessors,
        }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(self._data), 0x004E4942) + self._data
        return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks
