"""Normals, textures and light."""

import numpy as np
import pytest
import torch
import trimesh

from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.rendering.raster import rasterize
from i2l_meshnet.rendering.shading import (
    Lighting,
    interpolate,
    project,
    reduce,
    render_meshes,
    sample_textures,
    shade,
    shade_textured,
    vertex_normals,
)

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


@pytest.mark.parametrize("faces", [FACES, FACES[:, ::-1]])
def test_light_falls_by_lamberts_law_on_either_side(faces: np.ndarray):
    points = project(SQUARE, (20.0, 20.0), (15.5, 15.5))
    buffers = rasterize(points, faces, (32, 32))
    albedo = np.full((32, 32, 3), 0.5, np.float32)
    picture = shade(buffers, SQUARE, faces, vertex_normals(SQUARE, faces), albedo, one_light((0, -1, -1)))
    np.testing.assert_allclose(picture[buffers.mask], 0.5 * (0.2 + np.sqrt(0.5)), rtol=1e-5)
    assert (picture[~buffers.mask] == 0).all()


def test_a_light_behind_the_surface_does_not_reach_it():
    points = project(SQUARE, (20.0, 20.0), (15.5, 15.5))
    buffers = rasterize(points, FACES, (32, 32))
    albedo = np.ones((32, 32, 3), np.float32)
    picture = shade(buffers, SQUARE, FACES, vertex_normals(SQUARE, FACES), albedo, one_light((0, 0, 1)))
    np.testing.assert_allclose(picture[buffers.mask], 0.2)


def test_interpolation_is_linear_on_the_surface():
    tilted = SQUARE + np.array([0, 0, 1]) * SQUARE[:, :1]  # depth grows to the right
    points = project(tilted, (20.0, 20.0), (15.5, 15.5))
    buffers = rasterize(points, FACES, (32, 32))
    places = interpolate(buffers, FACES, tilted)
    np.testing.assert_allclose(places[..., 2][buffers.mask], buffers.depth[buffers.mask], rtol=1e-5)
    rows, columns = np.nonzero(buffers.mask)
    np.testing.assert_allclose(places[rows, columns, 0] / places[rows, columns, 2] * 20 + 15.5, columns, atol=1e-4)


def test_a_texture_lies_the_right_way_up():
    texture = np.arange(4 * 4 * 3, dtype=np.float32).reshape(1, 4, 4, 3)
    corner_uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)  # v = 1 at the top
    points = np.array([[0, 0, 1], [4, 0, 1], [4, 4, 1], [0, 4, 1]], np.float32) - np.array([0.5, 0.5, 0], np.float32)
    buffers = rasterize(points, FACES, (4, 4))
    sampled = sample_textures(buffers, texture, corner_uv[FACES], np.zeros(2, np.int32))
    np.testing.assert_allclose(sampled, texture[0], atol=1e-4)
    again = sample_textures(buffers, texture, corner_uv[FACES] + np.float32(-3), np.zeros(2, np.int32))
    np.testing.assert_allclose(again, texture[0], atol=1e-3)


def test_one_pass_gives_what_sampling_shading_and_reducing_do():
    rng = np.random.default_rng(0)
    vertices = np.concatenate([SQUARE, SQUARE * [0.7, 0.4, 1.1] + [0.2, 0.1, 0.3]]).astype(np.float32)
    faces = np.concatenate([FACES, FACES[:, ::-1] + 4])
    textures = rng.uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    uv = rng.uniform(-1, 2, (4, 3, 2)).astype(np.float32)
    texture = np.array([0, 0, 1, 1], np.int32)
    lighting = one_light((0.3, -1, -1))
    buffers = rasterize(project(vertices, (20.0, 20.0), (15.5, 15.5), 2), faces, (64, 64))
    albedo = sample_textures(buffers, textures, uv, texture)
    shaded = shade(buffers, vertices, faces, vertex_normals(vertices, faces), albedo, lighting)
    picture, coverage = shade_textured(buffers, vertices, faces, textures, uv, texture, lighting, 2)
    np.testing.assert_allclose(picture, reduce(shaded, 2), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(coverage, reduce(buffers.mask.astype(np.float32)[..., None], 2)[..., 0])
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


def test_reduce_takes_the_mean_of_blocks():
    picture = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    np.testing.assert_allclose(reduce(picture, 2)[..., 0], [[2.5, 4.5], [10.5, 12.5]])
