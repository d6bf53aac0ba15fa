"""The band-wise drawing against the rasteriser and plain shading of what it sees."""

import numpy as np
import pytest

from i2l_meshnet.rendering.lit import LIGHTING, draw_lit
from i2l_meshnet.rendering.raster import rasterize


def scene(seed: int, size: tuple[int, int], samples: int) -> tuple[np.ndarray, ...]:
    """Triangles of all sizes: off the picture, behind the camera, without area, with edges in common, at the border."""
    generator = np.random.default_rng(seed)
    extent = np.array([size[1], size[0]]) * samples
    centers = generator.uniform(-0.2, 1.2, (60, 1, 2))
    places = (centers + generator.normal(0, 1, (60, 3, 2)) * generator.choice([0.02, 0.07], (60, 1, 1))) * extent
    places[0] = [[-5, -5], [extent[0] / 3, -5], [-5, 2e5]]
    points = np.concatenate([places, generator.uniform(-0.2, 3, (60, 3, 1))], 2).reshape(-1, 3).astype(np.float32)
    points[::17] = np.round(points[::17])
    own = np.arange(180).reshape(60, 3)
    faces = np.concatenate([own, np.roll(own, 1, 0)[:4] * [1, 0, 0] + own[:4] * [0, 1, 1], own[:5, [0, 0, 1]]])
    normals = generator.normal(0, 1, (180, 3)).astype(np.float32)
    return points, faces, normals, generator.uniform(0, 255, (len(faces), 3)).astype(np.float32)


@pytest.mark.parametrize(("size", "samples"), [((40, 70), 1), ((40, 70), 3), ((130, 25), 2)])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_mean_of_what_the_rasteriser_sees(size: tuple[int, int], samples: int, seed: int) -> None:
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


def test_what_cannot_be_seen_leaves_the_picture_empty() -> None:
    points = np.array([[1, 1, -1], [5, 1, 2], [1, 5, 2], [np.nan, 0, 1], [3, 3, 1], [4, 4, 1]], np.float32)
    faces = np.array([[0, 1, 2], [3, 4, 5], [4, 5, 5]])
    color, alpha = draw_lit(points, faces, np.ones((6, 3), np.float32), np.ones((3, 3), np.float32), (8, 8), 2)
    assert not color.any()
    assert not alpha.any()
