"""Drawings of single samples: the photo around the person, and each mesh on the photo."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.pictures import read_picture
from i2l_meshnet.rendering.shading import render_meshes

SIDE = 420
"""Height of a panel, pixels."""
COLOUR = (0.48, 0.67, 0.88)
CAPTION = 26


def draw_sample(
    path: Path,
    box: Float[np.ndarray, "4"],
    meshes: Mapping[str, Float[np.ndarray, "v 3"]],
    faces: Int[np.ndarray, "f 3"],
    camera: Camera,
    captions: Mapping[str, str],
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the box (x, y, width, height; px) of an image, then the box with each mesh (camera frame, m). RGB.

    captions: by mesh; "" is the caption of the photo. Raise FileError for an unreadable image.
    """
    image = read_picture(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise FileError(f"picture {path} is missing or damaged: download it again")
    scale = SIDE / float(box[3])
    width = max(1, round(float(box[2]) * scale))
    # Pixel centres: image x is drawn at (x - left + 0.5) · scale - 0.5.
    shift = (0.5 - np.asarray(box[:2], np.float64)) * scale - 0.5
    affine = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    photo = cv2.cvtColor(cv2.warpAffine(image, affine, (width, SIDE), flags=flags), cv2.COLOR_BGR2RGB)
    focal_x, focal_y = (value * scale for value in camera.focal.tolist())
    center_x, center_y = (value * scale + moved for value, moved in zip(camera.center.tolist(), shift, strict=True))
    panels = [captioned(photo, captions.get("", ""))]
    for kind, vertices in meshes.items():
        colours = np.tile(np.array(COLOUR, np.float32), (len(vertices), 1))
        drawn, cover = render_meshes(vertices, faces, (focal_x, focal_y), (center_x, center_y), (SIDE, width), colours)
        mixed = photo * (1 - cover[..., None]) + 255 * drawn
        panels.append(captioned(np.clip(mixed + 0.5, 0, 255).astype(np.uint8), captions.get(kind, kind)))
    return np.concatenate(panels, 1)


def captioned(panel: UInt8[np.ndarray, "h w 3"], text: str) -> UInt8[np.ndarray, "h2 w 3"]:
    """A panel with a line of text below."""
    strip = np.full((CAPTION, panel.shape[1], 3), 24, np.uint8)
    cv2.putText(strip, text, (6, CAPTION - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([panel, strip])
