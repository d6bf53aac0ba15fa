"""Normals, textures and light."""

import numpy as np
import pytest
import trimesh

from i2l_meshnet.rendering.raster import rasterize
from i2l_meshnet.rendering.shading import Lighting, Textures, project, render_meshes, shade, vertex_normals

SQUARE = np.array([[-1, -1, 2], [1, -1, 2], [1, 1, 2], [-1, 1, 2]], np.float32)
"""Faces the camera with the second winding."""
FACES = np.array([[0, 2, 1], [0, 3, 2]])


def icosphere() -> tuple[np.ndarray, np.ndarray]:
    sphere = trimesh.creation.icosphere(subdivisions=4)
    return np.asarray(sphere.vertices, np.float32), np.asarray(sphere.faces)


def one_light(direction: tuple[float, float, float]) -> Lighting:
    unit = (np.array([direction]) / np.linalg.norm(direction)).astype(np.float32)
    return Lighting(np.full(3, 0.2, np.float32), unit, np.ones((1, 3), np.float32))


def test_normals_of_a_sphere_point_outwards():
    vertices, faces = icosphere()
    np.testing.assert_allclose(vertex_normals(vertices, faces), vertices, atol=8e-3)
    loose = np.concatenate([SQUARE, [[5, 5, 5]]]).astype(np.float32)
    assert (vertex_normals(loose, FACES)[4] == 0).all()


def drawn(
    vertices: np.ndarray, faces: np.ndarray, paint: np.ndarray | Textures, lighting: Lighting, factor: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and coverage of 32 x 32 pixels."""
    buffers = rasterize(project(vertices, (20.0, 20.0), (15.5, 15.5), factor), faces, (32 * factor, 32 * factor))
    return shade(buffers, vertices, faces, paint, lighting, factor)


@pytest.mark.parametrize("faces", [FACES, FACES[:, ::-1]])
@pytest.mark.parametrize(("light", "expected"), [((0, -1, -1), 0.2 + np.sqrt(0.5)), ((0, 0, 1), 0.2)])
def test_the_visible_side_is_lit_by_lamberts_law(faces: np.ndarray, light: tuple[float, float, float], expected: float):
    picture, coverage = drawn(SQUARE, faces, np.full((4, 3), 0.5), one_light(light))
    np.testing.assert_allclose(picture[coverage == 1], 0.5 * expected, rtol=1e-5)
    assert (picture[coverage == 0] == 0).all()


def test_colours_are_interpolated_on_the_surface():
    tilted = SQUARE + np.array([0, 0, 1]) * SQUARE[:, :1]  # depth grows to the right
    flat = Lighting(np.ones(3, np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    places, coverage = drawn(tilted, FACES, tilted, flat)
    rows, columns = np.nonzero(coverage)
    np.testing.assert_allclose(places[rows, columns, 0] / places[rows, columns, 2] * 20 + 15.5, columns, atol=1e-4)


def test_a_texture_is_upright_and_repeats():
    pictures = np.arange(4 * 4 * 3, dtype=np.float32).reshape(1, 4, 4, 3)
    corner_uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)  # v = 1 at the top
    points = np.array([[0, 0, 1], [4, 0, 1], [4, 4, 1], [0, 4, 1]], np.float32) - np.array([0.5, 0.5, 0], np.float32)
    buffers = rasterize(points, FACES, (4, 4))
    flat = Lighting(np.ones(3, np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    for shift in (0, -3):
        textures = Textures(pictures, corner_uv[FACES] + np.float32(shift), np.zeros(2, np.int32))
        sampled, _ = shade(buffers, points, FACES, textures, flat)
        np.testing.assert_allclose(sampled, pictures[0], atol=1e-3)


def test_pixels_are_the_means_of_their_samples():
    vertices = np.concatenate([SQUARE, SQUARE * [0.7, 0.4, 1.1] + [0.2, 0.1, 0.3]]).astype(np.float32)
    faces = np.concatenate([FACES, FACES[:, ::-1] + 4])
    colours, lighting = np.random.default_rng(0).uniform(0, 1, (8, 3)), one_light((0.3, -1, -1))
    picture, coverage = drawn(vertices, faces, colours, lighting, 2)
    buffers = rasterize(project(vertices, (20.0, 20.0), (15.5, 15.5), 2), faces, (64, 64))
    samples, covered = shade(buffers, vertices, faces, colours, lighting)
    np.testing.assert_allclose(picture, samples.reshape(32, 2, 32, 2, 3).mean((1, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(coverage, covered.reshape(32, 2, 32, 2).mean((1, 3)))
    assert 0 < coverage.mean() < 1


def test_supersampling_keeps_positions_and_smooths_edges():
    vertices, faces = icosphere()
    vertices = vertices * 0.5 + np.array([0.2, -0.1, 3], np.float32)
    colours = np.full((len(vertices), 3), 0.8, np.float32)
    options = {"focal": (100.0, 100.0), "center": (31.5, 31.5), "size": (64, 64), "colours": colours}
    _, plain = render_meshes(vertices, faces, **options, supersample=1)
    picture, smooth = render_meshes(vertices, faces, **options, supersample=4)
    center = np.array(np.nonzero(plain)).mean(1)
    rows, columns = np.indices(smooth.shape)
    smooth_center = [(smooth * rows).sum() / smooth.sum(), (smooth * columns).sum() / smooth.sum()]
    np.testing.assert_allclose(center, smooth_center, atol=0.15)
    assert abs(smooth.sum() / plain.sum() - 1) < 0.02
    assert ((smooth > 0) & (smooth < 1)).any()
    assert (picture <= smooth[..., None] + 1e-6).all()
