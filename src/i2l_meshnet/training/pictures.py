"""Drawings of predictions during a training."""

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from i2l_meshnet.bodies.base import BodyMesh
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.rendering.raster import rasterize
from i2l_meshnet.rendering.shading import Lighting, shade

COLOUR = np.array([0.55, 0.75, 1.0], np.float32)


def prediction_sheet(sample: Sample, mesh: BodyMesh, faces: Int[Tensor, "f 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Per sample, one row: the crop, and the crop with the mesh (camera frame, m) drawn on it. RGB."""
    triangles = faces.cpu().numpy()
    pixels = sample.crop.to_crop(sample.annotation.camera.project(mesh.vertices))
    points = torch.cat([pixels, mesh.vertices[..., 2:]], -1).float().cpu().numpy()
    vertices = mesh.vertices.float().cpu().numpy()
    rows = []
    for image, projected, solid in zip(sample.image.cpu().numpy(), points, vertices, strict=True):
        crop = image.transpose(1, 2, 0)
        buffers = rasterize(np.ascontiguousarray(projected), triangles, crop.shape[:2])
        picture, _ = shade(buffers, solid, triangles, np.broadcast_to(COLOUR, solid.shape), Lighting.studio())
        drawn = np.where(buffers.mask[..., None], (255 * picture).clip(0, 255), crop)
        rows.append(np.hstack([crop, drawn.astype(np.uint8)]))
    return np.vstack(rows)
