"""Draws predictions: meshes on the photo, from the side and from above, and 2D joints."""

import math
from collections.abc import Sequence
from typing import Literal, no_type_check

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from i2l_meshnet.compiling import compiled
from i2l_meshnet.prediction.mesh_files import Surface
from i2l_meshnet.rendering.lit import draw_lit
from i2l_meshnet.skeletons import LEFT, RIGHT, Skeleton

COLORS = np.array(
    [
        *((122, 172, 224), (238, 140, 112), (146, 196, 130), (180, 152, 222)),
        *((232, 194, 98), (92, 186, 184), (228, 142, 180), (202, 176, 148)),
    ],
    np.float32,
)
"""RGB of the first, second, ... person; repeated for more people."""

LEFT_COLOR, RIGHT_COLOR, MIDDLE_COLOR = (64, 156, 255), (255, 136, 48), (236, 236, 236)
OPACITY = 0.94
SAMPLES_MAX = 4_000_000
"""Maximum number of samples in a drawing. Large drawings have fewer samples per pixel."""
VIEW_SIDE = 1000


def fit_to_side(
    pixels: UInt8[np.ndarray, "h w 3"], max_side: int
) -> tuple[UInt8[np.ndarray, "oh ow 3"], Float[np.ndarray, "2"]]:
    """Shrink a picture so that its longer side is at most `max_side` (0: no limit). Also returns the scale of (x, y).

    A point p moves to (p + 0.5) · scale - 0.5.
    """
    height, width = pixels.shape[:2]
    if max_side <= 0 or max(height, width) <= max_side:
        return pixels, np.ones(2)
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.array([size[0] / width, size[1] / height])


def draw_overlay(
    photo: UInt8[np.ndarray, "h w 3"],
    surfaces: Sequence[Surface],
    focal: Float[np.ndarray, "2"],
    center: Float[np.ndarray, "2"],
    numbers: Sequence[int] | None = None,
    samples: int = 3,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw meshes on the photo as the camera sees them. focal, center: pixels of `photo`.

    numbers: the person whose colour each mesh has; None: in order. samples: maximum samples along each side of a pixel.
    """
    points = []
    for surface in surfaces:
        depth = surface.vertices[:, 2:]
        flat = surface.vertices[:, :2] / np.maximum(depth, 1e-6) * focal + center
        points.append(np.concatenate([flat, depth], 1))
    return _paint(photo, surfaces, points, [surface.normals for surface in surfaces], numbers, samples, OPACITY)


def draw_view(
    surfaces: Sequence[Surface],
    view: Literal["side", "top"],
    numbers: Sequence[int] | None = None,
    bounds: Float[np.ndarray, "2 3"] | None = None,
    samples: int = 3,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw all meshes without perspective on a plain background, with a scale bar.

    "side": from the camera's right; the camera is to the left of the drawing. "top": from above; the camera is below
    the drawing. numbers, samples: as in `draw_overlay`. bounds: minimum and maximum x, y, z of the drawn volume (camera
    frame, metres); None: of the meshes.
    """
    # Rows: the directions in the camera frame that are right, down and away from the viewer.
    axes = {
        "side": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
        "top": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    }[view]
    rotated = [surface.vertices @ axes.T for surface in surfaces]
    corners = rotated if bounds is None else [bounds @ axes.T]
    low, high = (np.min([c.min(0) for c in corners], 0), np.max([c.max(0) for c in corners], 0))
    extent = np.maximum(high - low, 0.2)
    scale = VIEW_SIDE * 0.86 / extent[:2].max()
    width, height = (max(VIEW_SIDE // 3, math.ceil(side * scale + VIEW_SIDE * 0.14)) for side in extent[:2])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    points = []
    for t in rotated:
        flat = (t[:, :2] - (low + high)[:2] / 2) * scale + middle
        points.append(np.concatenate([flat, t[:, 2:] - low[2] + 1.0], 1))
    paper = np.linspace(250, 226, height)[:, None, None].repeat(width, 1).repeat(3, 2).astype(np.uint8)
    normals = [surface.normals @ axes.T for surface in surfaces]
    return _with_scale_bar(_paint(paper, surfaces, points, normals, numbers, samples, 1.0), scale)


def _paint(
    picture: UInt8[np.ndarray, "h w 3"],
    surfaces: Sequence[Surface],
    points: Sequence[Float[np.ndarray, "_ 3"]],
    normals: Sequence[Float[np.ndarray, "_ 3"]],
    numbers: Sequence[int] | None,
    samples: int,
    opacity: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of a picture with shaded meshes on it. Only their bounding box is drawn, with smooth edges.

    points: x, y in pixels and depth in metres of each mesh's vertices. normals: in the same frame. numbers, samples: as
    in `draw_overlay`.
    """
    corners = np.concatenate([np.empty((0, 3)), *points])
    seen = corners[(corners[:, 2] > 0) & np.isfinite(corners).all(1)]
    if not len(seen):
        return picture
    left, top = (max(int(low) - 1, 0) for low in np.maximum(np.floor(seen[:, :2].min(0)), 0))
    right = int(min(np.ceil(seen[:, 0].max()) + 2, picture.shape[1]))
    bottom = int(min(np.ceil(seen[:, 1].max()) + 2, picture.shape[0]))
    if right <= left or bottom <= top:
        return picture
    width, height = right - left, bottom - top
    samples = max(1, min(samples, math.isqrt(SAMPLES_MAX // (width * height))))

    offsets = np.cumsum([0, *(len(p) for p in points[:-1])])
    faces = np.concatenate([s.faces + offset for s, offset in zip(surfaces, offsets, strict=True)])
    colors = range(len(surfaces)) if numbers is None else numbers
    person = np.concatenate([np.full(len(s.faces), i % len(COLORS)) for i, s in zip(colors, surfaces, strict=True)])
    moved = corners.copy()
    moved[:, :2] = (moved[:, :2] - (left, top) + 0.5) * samples - 0.5
    shading = np.concatenate(normals).astype(np.float32)
    color, alpha = draw_lit(moved.astype(np.float32), faces, shading, COLORS[person], (height, width), samples)
    painted = picture.copy()
    _blend(painted, color, alpha, left, top, opacity)
    return painted


@compiled
@no_type_check  # the jaxtyping import hook must not wrap compiled functions
def _blend(picture, color, alpha, left, top, opacity):
    """Blend colours (RGB times alpha) into `picture` in place."""
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            if alpha[y, x] > 0:
                keep = 1 - opacity * alpha[y, x]
                for k in range(3):
                    value = picture[top + y, left + x, k] * keep + opacity * color[y, x, k]
                    picture[top + y, left + x, k] = np.uint8(min(value + 0.5, 255.0))


def _with_scale_bar(picture: UInt8[np.ndarray, "h w 3"], scale: float) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a bar of a round length at the lower left. scale: pixels per metre."""
    length = next(
        (metres for metres in (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1) if metres * scale <= 0.25 * VIEW_SIDE), 0.05
    )
    y, x = picture.shape[0] - 24, 24
    end = x + round(length * scale)
    cv2.line(picture, (x, y), (end, y), (90, 90, 90), 3, cv2.LINE_AA)
    cv2.putText(picture, f"{length:g} m", (x, y - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (90, 90, 90), 1, cv2.LINE_AA)
    return picture


def draw_joints(
    photo: UInt8[np.ndarray, "h w 3"], people: Sequence[Float[np.ndarray, "j 2"]], skeleton: Skeleton
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw 2D joints (pixels of `photo`) and bones: blue on the left side, orange on the right, light in the middle."""
    picture = photo.copy()
    reach = 8 * max(photo.shape)
    for joints in people:
        points = np.clip(np.nan_to_num(joints), -reach, reach)
        extent = float(np.ptp(points, axis=0).max())
        thick = max(1, round(extent / 110))
        for shade in (True, False):  # a dark border first, to make bones visible on any photo
            for start, end in skeleton.bone_indices:
                color = (24, 24, 24) if shade else _side_color(skeleton.joints[start], skeleton.joints[end])
                ends = (_subpixel(points[start]), _subpixel(points[end]))
                cv2.line(picture, *ends, color, thick + 2 * shade, cv2.LINE_AA, 4)
            for index, name in enumerate(skeleton.joints):
                color = (24, 24, 24) if shade else _side_color(name, name)
                radius = round((thick * 1.3 + shade) * 16)
                cv2.circle(picture, _subpixel(points[index]), radius, color, -1, cv2.LINE_AA, 4)
    return picture


def _subpixel(point: Float[np.ndarray, "2"]) -> tuple[int, int]:
    return round(float(point[0]) * 16), round(float(point[1]) * 16)


def _side_color(start: str, end: str) -> tuple[int, int, int]:
    names = (start, end)
    if any(name.startswith(LEFT) for name in names):
        return LEFT_COLOR
    return RIGHT_COLOR if any(name.startswith(RIGHT) for name in names) else MIDDLE_COLOR
