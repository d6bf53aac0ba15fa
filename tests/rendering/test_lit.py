"""`draw_lit` compared with the rasteriser and plain shading."""

import numpy as np
import pytest

from i2l_meshnet.rendering.lit import LIGHTING, draw_lit
from i2l_meshnet.rendering.raster import rasterize


def scene(seed: int, size: tuple[int, int], samples: int) -> tuple[np.ndarray, ...]:
    """Triangles of all sizes: outside the picture, behind the camera, without area, with shared edges."""
    generator = np.random.default_rng(seed)
    extent = np.array([size[1], size[0]]) * samples
    centers = generator.uniform(-0.2, 1.2, (60, 1, 2))
    positions = (centers + generator.normal(0, 1, (60, 3, 2)) * generator.choice([0.02, 0.07], (60, 1, 1))) * extent
    positions[0] = [[-5, -5], [extent[0] / 3, -5], [-5, 2e5]]
    points = np.concatenate([positions, generator.uniform(-0.2, 3, (60, 3, 1))], 2).reshape(-1, 3).astype(np.float32)
    points[::17] = np.round(points[::17])
    own = np.arange(180).reshape(60, 3)
    faces = np.concatenate([own, np.roll(own, 1, 0)[:4] * [1, 0, 0] + own[:4] * [0, 1, 1], own[:5, [0, 0, 1]]])
    normals = generator.normal(0, 1, (180, 3)).astype(np.float32)
    return points, faces, normals, generator.uniform(0, 255, (len(faces), 3)).astype(np.float32)


@pytest.mark.parametrize(("size", "samples", "seed"), [((40, 70), 1, 0), ((40, 70), 3, 1), ((130, 25), 2, 2)])
def test_a_pixel_is_the_mean_of_its_rasterised_samples(size: tuple[int, int], samples: int, seed: int) -> None:
    points, faces, normals, colors = scene(seed, size, samples)
    color, alpha = draw_lit(points, faces, normals, colors, size, samples)

    seen = rasterize(points, faces, (size[0] * samples, size[1] * samples))
    turned = (seen.barycentric[..., None] * normals[faces[seen.face]]).sum(2)
    turned /= np.maximum(np.linalg.norm(turned, axis=-1, keepdims=True), 1e-9)
    turned = np.where(turned[..., 2:] > 0, -turned, turned)
    cosines = np.maximum(turned @ LIGHTING.directions.T, 0)
    light = LIGHTING.ambient[0] + cosines @ LIGHTING.colours[:, 0]
    light = light * (0.72 - 0.42 * turned[..., 2]) * seen.mask
    expected = (light[..., None] * colors[seen.face]).reshape(size[0], samples, size[1], samples, 3).mean((1, 3))
    covered = seen.mask.reshape(size[0], samples, size[1], samples).mean((1, 3))
    assert 0.2 < covered.mean() < 1
    np.testing.assert_allclose(alpha, covered, atol=1e-6)
    np.testing.assert_allclose(color, expected, atol=2e-3)
