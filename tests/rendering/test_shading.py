"""Normals, textures and light."""

import numpy as np
import pytest
import torch
import trimesh

from i2l_meshnet.geometry.camera import Camera
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


def test_a_loose_vertex_has_no_normal():
    vertices = np.concatenate([SQUARE, [[5, 5, 5]]]).astype(np.float32)
    assert (vertex_normals(vertices, FACES)[4] == 0).all()


def drawn(
    vertices: np.ndarray, faces: np.ndarray, paint: np.ndarray | Textures, lighting: Lighting, factor: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and coverage of 32 x 32 pixels."""
    buffers = rasterize(project(vertices, (20.0, 20.0), (15.5, 15.5), factor), faces, (32 * factor, 32 * factor))
    return shade(buffers, vertices, faces, paint, lighting, factor)


@pytest.mark.parametrize("faces", [FACES, FACES[:, ::-1]])
@pytest.mark.parametrize(("light", "expected"), [((0, -1, -1), 0.2 + np.sqrt(0.5)), ((0, 0, 1), 0.2)])
def test_light_falls_by_lamberts_law_on_the_side_that_is_seen(
    faces: np.ndarray, light: tuple[float, float, float], expected: float
):
    picture, coverage = drawn(SQUARE, faces, np.full((4, 3), 0.5), one_light(light))
    np.testing.assert_allclose(picture[coverage == 1], 0.5 * expected, rtol=1e-5)
    assert (picture[coverage == 0] == 0).all()


def test_colours_are_interpolated_on_the_surface():
    tilted = SQUARE + np.array([0, 0, 1]) * SQUARE[:, :1]  # depth grows to the right
    flat = Lighting(np.ones(3, np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    places, coverage = drawn(tilted, FACES, tilted, flat)
    rows, columns = np.nonzero(coverage)
    np.testing.assert_allclose(places[rows, columns, 0] / places[rows, columns, 2] * 20 + 15.5, columns, atol=1e-4)


def test_a_texture_lies_the_right_way_up_and_repeats():
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


def test_supersampling_keeps_places_and_smooths_edges():
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


def test_people_occlude_each_other_by_depth():
    vertices, faces = icosphere()
    near, far = vertices * 0.3 + np.array([0, 0, 2], np.float32), vertices * 0.6 + np.array([0, 0, 4], np.float32)
    both = np.concatenate([far, near])
    colours = np.concatenate([np.tile([[1.0, 0, 0]], (len(far), 1)), np.tile([[0, 1.0, 0]], (len(near), 1))])
    picture, _ = render_meshes(
        both, np.concatenate([faces, faces + len(far)]), (100.0, 100.0), (31.5, 31.5), (64, 64), colours
    )
    assert picture[32, 32, 1] > 0.3
    assert picture[32, 32, 0] == 0


def test_projection_agrees_with_the_camera():
    points = np.random.default_rng(0).normal(size=(9, 3)) + np.array([0, 0, 4])
    camera = Camera(torch.tensor([500.0, 480.0]), torch.tensor([320.0, 200.0]))
    expected = camera.project(torch.from_numpy(points).float()).numpy()
    np.testing.assert_allclose(project(points, (500.0, 480.0), (320.0, 200.0))[:, :2], expected, atol=1e-3)
