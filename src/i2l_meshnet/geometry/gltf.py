"""What glTF asks of geometry: its frame, and one index for a vertex and its texture coordinates."""

import numpy as np
from jaxtyping import Float, Int

CAMERA_TO_GLTF = np.array([1.0, -1.0, -1.0])
"""Camera frame (x right, y down, z forward) to glTF's (y up, z towards the viewer): half a turn about x."""

SKIN_COLOUR = (215, 190, 170)
"""Red, green and blue of the bodies' material, 0 to 255."""

SKIN_ROUGHNESS = 0.8


def one_index(
    faces: Int[np.ndarray, "f 3"], uv: Float[np.ndarray, "t 2"], face_uv: Int[np.ndarray, "f 3"]
) -> tuple[Int[np.ndarray, "f 3"], Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
    """Repeats a vertex on a seam for each of its texture coordinates.

    Returns faces over the P pairs, and each pair's vertex and texture coordinate.
    """
    pairs = faces.ravel().astype(np.int64) * len(uv) + face_uv.ravel()
    unique, inverse = np.unique(pairs, return_inverse=True)
    of_vertex, of_uv = np.divmod(unique, len(uv))
    return inverse.reshape(-1, 3), of_vertex, of_uv
