"""The z-buffer: coverage, occlusion, perspective, and invalid input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from i2l_meshnet.rendering.raster import Cutout, RasterBuffers, rasterize

TRIANGLE = np.array([[0, 1, 2]])


def draw(*corners: tuple[float, float, float], size: tuple[int, int] = (20, 30), **options) -> RasterBuffers:
    points = np.array(corners, np.float32)
    faces = np.arange(len(points)).reshape(-1, 3)
    return rasterize(points, faces, size, **options)


def test_a_triangle_covers_the_pixel_centres_inside_it_and_on_its_edges():
    rows, columns = np.mgrid[:20, :30]
    for corners in ([(2, 3, 1), (6, 3, 1), (2, 7, 1)], [(2, 3, 1), (2, 7, 1), (6, 3, 1)]):
        np.testing.assert_array_equal(draw(*corners).mask, (columns >= 2) & (rows >= 3) & (columns + rows <= 9))


def test_the_nearer_triangle_hides_the_farther_in_any_order():
    near, far = [(0, 0, 1), (20, 0, 1), (0, 20, 1)], [(0, 0, 2), (20, 0, 2), (0, 20, 2)]
    covered = draw(*near).mask
    assert (draw(*near, *far).face[covered] == 0).all()
    assert (draw(*far, *near).face[covered] == 1).all()


def test_intersecting_triangles_are_cut_where_they_meet():
    buffers = draw((0, 0, 1), (0, 40, 1), (20, 0, 3), (0, 0, 3), (0, 40, 3), (20, 0, 1))
    row = buffers.face[0, :20]
    assert (row[:9] == 0).all()
    assert (row[11:] == 1).all()


def test_depth_and_weights_are_those_of_the_camera_ray():
    """Compared with the intersection of each pixel's ray with the plane of the triangle, in double precision."""
    focal, center = 40.0, np.array([15.0, 10.0])
    corners = np.array([[-0.5, -0.3, 1.2], [0.9, -0.4, 3.0], [0.1, 0.6, 1.7]])
    points = np.concatenate([corners[:, :2] / corners[:, 2:] * focal + center, corners[:, 2:]], 1).astype(np.float32)
    buffers = rasterize(points, TRIANGLE, (20, 30))
    rows, columns = np.nonzero(buffers.mask)
    assert len(rows) > 50
    rays = np.stack([(columns - center[0]) / focal, (rows - center[1]) / focal, np.ones(len(rows))], 1)
    # ray * depth = corners^T weights, weights sum to 1
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    depth = normal @ corners[0] / (rays @ normal)
    np.testing.assert_allclose(buffers.depth[rows, columns], depth, rtol=1e-5)
    np.testing.assert_allclose(buffers.barycentric[rows, columns] @ corners, rays * depth[:, None], atol=1e-5)


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_triangulated_square_has_no_gap(seed: int):
    """Any subdivision of a rectangle covers each pixel centre inside it; vertices on and off pixel centres."""
    rng = np.random.default_rng(seed)
    x = np.unique(np.concatenate([[1.0, 18.0], rng.uniform(1, 18, 5), rng.integers(1, 18, 3)])).astype(np.float32)
    y = np.unique(np.concatenate([[2.0, 17.0], rng.uniform(2, 17, 5), rng.integers(2, 17, 3)])).astype(np.float32)
    inner = np.stack(np.meshgrid(x, y), -1)
    inner[1:-1, 1:-1] += rng.normal(0, 1e-4, inner[1:-1, 1:-1].shape)
    points = np.concatenate([inner.reshape(-1, 2), np.ones((inner.size // 2, 1))], 1).astype(np.float32)
    index = np.arange(len(points)).reshape(len(y), len(x))
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([c, d, a], 1)])
    mask = rasterize(points, rng.permutation(faces), (20, 20)).mask
    expected = np.zeros((20, 20), bool)
    expected[2:18, 1:19] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "corners",
    [
        [(-9, -9, 1), (-2, -9, 1), (-9, -2, 1)],
        [(35, 2, 1), (40, 2, 1), (35, 9, 1)],
        [(2, 3, 1), (6, 3, 0.001), (2, 7, 1)],
        [(2, 3, np.nan), (6, 3, 1), (2, 7, 1)],
        [(2, np.inf, 1), (6, 3, 1), (2, 7, 1)],
        [(2, 2, 1), (5, 5, 1), (8, 8, 1)],
        [],
    ],
    ids=["left", "right", "near the camera", "NaN", "infinite", "without area", "no triangle"],
)
def test_invisible_triangles_draw_nothing(corners: list[tuple[float, float, float]]):
    buffers = rasterize(np.array(corners, np.float32).reshape(-1, 3), TRIANGLE[: len(corners)], (20, 30))
    assert not buffers.mask.any()
    assert np.isinf(buffers.depth).all()


def test_a_huge_triangle_fills_the_picture():
    buffers = draw((-1e9, -1e9, 2), (1e9, -1e9, 2), (0, 2e9, 2))
    assert buffers.mask.all()
    np.testing.assert_allclose(buffers.depth, 2)


def test_bias_decides_who_is_in_front_but_not_the_depth():
    near, far = [(0, 0, 1), (20, 0, 1), (0, 20, 1)], [(0, 0, 1.01), (20, 0, 1.01), (0, 20, 1.01)]
    buffers = draw(*near, *far, depth_bias=np.array([0, 0.02], np.float32))
    assert (buffers.face[buffers.mask] == 1).all()
    np.testing.assert_allclose(buffers.depth[buffers.mask], 1.01)


def test_transparent_parts_show_what_is_behind():
    near, far = [(0, 0, 1), (40, 0, 1), (0, 40, 1)], [(0, 0, 2), (40, 0, 2), (0, 40, 2)]
    opaque = np.array([[[False, True], [False, True]]])  # the left half is transparent
    uv = np.tile(np.array([[0, 1], [1, 1], [0, 0]], np.float32), (2, 1, 1))
    buffers = draw(*near, *far, cutout=Cutout(opaque, uv, np.array([0, -1], np.int32)))
    assert (buffers.face[:5, :19] == 1).all()
    assert (buffers.face[:5, 21:] == 0).all()


def test_invalid_input_is_refused():
    for points, size in ((np.zeros((2, 3), np.float32), (4, 4)), (np.zeros((3, 3), np.float32), (0, 4))):
        with pytest.raises(ValueError):  # noqa: PT011
            rasterize(points, TRIANGLE, size)
