"""A sheet of predictions, to look at while a training runs."""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from i2l_meshnet.bodies.base import BodyMesh
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.rendering.raster import rasterize
from i2l_meshnet.rendering.shading import Lighting, shade

COLOUR = np.array([0.55, 0.75, 1.0], np.float32)


def prediction_sheet(sample: Sample, mesh: BodyMesh, faces: Int[Tensor, "f 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Each crop beside the same with the mesh (camera frame, m) drawn on it, one row a sample; RGB."""
    triangles = faces.cpu().numpy()
    pixels = sample.crop.to_crop(sample.annotation.camera.project(mesh.vertices))
    points = torch.cat([pixels, mesh.vertices[..., 2:]], -1).float().cpu().numpy()
    vertices = mesh.vertices.float().cpu().numpy()
    rows = []
    for image, seen, solid in zip(sample.image.cpu().numpy(), points, vertices, strict=True):
        crop = image.transpose(1, 2, 0)
        rows.append(np.hstack([crop, _drawn(crop, seen, solid, triangles)]))
    return np.vstack(rows)


def _drawn(
    crop: UInt8[np.ndarray, "h w 3"],
    points: Float[np.ndarray, "v 3"],
    vertices: Float[np.ndarray, "v 3"],
    faces: np.ndarray,
) -> UInt8[np.ndarray, "h w 3"]:
    buffers = rasterize(np.ascontiguousarray(points), faces, crop.shape[:2])
    picture, _ = shade(buffers, vertices, faces, np.broadcast_to(COLOUR, vertices.shape), Lighting.studio())
    covered = buffers.mask[..., None]
    return np.where(covered, (255 * picture).clip(0, 255), crop).astype(np.uint8)
