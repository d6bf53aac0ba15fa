import cv2
import numpy as np
import pytest
from stand_in import Scene

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.prediction.mesh_files import Surface
from i2l_meshnet.prediction.overlay import (
    COLORS,
    LEFT_COLOR,
    OPACITY,
    RIGHT_COLOR,
    draw_joints,
    draw_overlay,
    draw_view,
    fit_to_side,
)

FOCAL, CENTER = np.array([860.0, 860.0]), np.array([449.5, 349.5])


def surface_of(scene: Scene, number: int, body: Body) -> Surface:
    return Surface(scene.people[number].mesh.vertices.double().numpy(), body.faces.numpy())


def projected(surface: Surface) -> np.ndarray:
    flat = surface.vertices[:, :2] / surface.vertices[:, 2:] * FOCAL + CENTER
    return np.concatenate([flat, surface.vertices[:, 2:]], 1)


def coverage(surface: Surface) -> np.ndarray:
    """Share of each pixel that a drawn mesh covers: the share of a white photo that it hides."""
    white, black = (draw_overlay(np.full((700, 900, 3), v, np.uint8), [surface], FOCAL, CENTER) for v in (255, 0))
    return (1 - (white.astype(float) - black).mean(-1) / 255) / OPACITY


@pytest.mark.parametrize("number", [0, 2])
def test_the_silhouette_is_the_projection(scenes: list[Scene], anny: Body, number: int) -> None:
    surface = surface_of(scenes[0], number, anny)
    points, alpha = projected(surface), coverage(surface)
    # An independent drawing: each projected triangle filled at eight times the resolution.
    fine = 8
    mask = np.zeros((700 * fine, 900 * fine), np.uint8)
    corners = ((points[:, :2] + 0.5) * fine - 0.5) * 16
    for face in surface.faces:
        cv2.fillConvexPoly(mask, np.round(corners[face]).astype(np.int32), 1, cv2.LINE_8, 4)
    truth = mask.reshape(700, fine, 900, fine).mean((1, 3))
    assert np.abs(alpha - truth).max() < 0.75
    assert np.abs(alpha.sum() - truth.sum()) < 0.02 * truth.sum()
    drawn = np.argwhere(alpha > 0)[:, ::-1]
    np.testing.assert_allclose(drawn.min(0), points[:, :2].min(0), atol=1)
    np.testing.assert_allclose(drawn.max(0), points[:, :2].max(0), atol=1)
    # Nothing else of the photo changes.
    photo = np.random.default_rng(0).integers(0, 255, (700, 900, 3), dtype=np.uint8)
    changed = (draw_overlay(photo, [surface], FOCAL, CENTER) != photo).any(-1)
    assert changed.sum() > 3000
    assert (alpha[changed] > 0).all()


def test_the_nearer_person_hides_the_farther(anny: Body, scenes: list[Scene]) -> None:
    near, far = surface_of(scenes[0], 1, anny), surface_of(scenes[0], 2, anny)
    both = (coverage(near) > 0.99) & (coverage(far) > 0.99)
    assert both.sum() > 500
    black = np.zeros((700, 900, 3), np.uint8)
    for order in ([near, far], [far, near]):
        drawn = draw_overlay(black, order, FOCAL, CENTER)[both].astype(float)
        color = COLORS[0 if order[0] is near else 1]
        # Every shared pixel has the hue of the nearer person.
        hue = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        np.testing.assert_allclose(hue, np.broadcast_to(color / np.linalg.norm(color), hue.shape), atol=0.03)


def test_a_mesh_beyond_the_border_or_behind_the_camera(anny: Body, scenes: list[Scene]) -> None:
    photo = np.full((700, 900, 3), 77, np.uint8)
    surface = surface_of(scenes[0], 0, anny)
    moved = Surface(surface.vertices + np.array([40.0, 0, 0]), surface.faces)
    np.testing.assert_array_equal(draw_overlay(photo, [moved], FOCAL, CENTER), photo)
    behind = Surface(surface.vertices - np.array([0, 0, 30.0]), surface.faces)
    np.testing.assert_array_equal(draw_overlay(photo, [behind], FOCAL, CENTER), photo)
    half = Surface(surface.vertices - np.array([0, 0, 4.0]), surface.faces)  # the camera is inside the body
    assert draw_overlay(photo, [half], FOCAL, CENTER).shape == photo.shape
    assert photo.min() == photo.max() == 77


def test_views_show_depth_and_height(anny: Body) -> None:
    rest = anny(anny.rest_params()).vertices.double().numpy() @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T
    upright = Surface(rest * [1, -1, -1], anny.faces.numpy())  # x right, y down, facing the camera
    size = np.ptp(upright.vertices, axis=0)
    for view, (across, down) in {"side": (2, 1), "top": (0, 2)}.items():
        picture = draw_view([upright], view).astype(int)
        colored = np.ptp(picture, axis=-1) > 20
        rows, columns = np.nonzero(colored)
        ratio = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
        assert ratio == pytest.approx(size[across] / size[down], rel=0.03)
    # From the side, the camera is on the left: the toes point there, so the feet reach farther left than the calves.
    picture = draw_view([upright], "side").astype(int)
    side = np.ptp(picture, axis=-1) > 20
    rows, _ = np.nonzero(side)
    foot, calf = side[rows.max() - 8], side[rows.max() - 150]
    assert np.nonzero(foot)[0].min() < np.nonzero(calf)[0].min() - 20
    # Half a metre is the longest round length that is at most a quarter of the picture's side.
    bar = np.nonzero(picture[-24, 24:].max(-1) > 120)[0][0]
    assert bar == pytest.approx(0.5 * (np.ptp(rows) + 1) / size[1], abs=4)


def test_shrinking_keeps_pixel_centres() -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[150, 100] = 255
    small, scale = fit_to_side(picture, 100)
    assert small.shape == (75, 100, 3)
    y, x = np.unravel_index(small[..., 0].argmax(), small.shape[:2])
    np.testing.assert_allclose((np.array([100, 150]) + 0.5) * scale - 0.5, [x, y], atol=0.5)
    same, one = fit_to_side(picture, 0)
    assert same is picture
    assert one.tolist() == [1, 1]


def test_joints_are_drawn_where_they_are(anny: Body, scenes: list[Scene]) -> None:
    photo = np.full((700, 900, 3), 30, np.uint8)
    joints = scenes[0].camera.project(scenes[0].people[0].mesh.joints).double().numpy()
    picture = draw_joints(photo, [joints], anny.skeleton)
    for name, color in (("L_Wrist", LEFT_COLOR), ("R_Ankle", RIGHT_COLOR)):
        x, y = np.round(joints[anny.skeleton.index(name)]).astype(int)
        np.testing.assert_allclose(picture[y, x].astype(int), color, atol=30)
    far = joints.copy()
    far[0] = (1e9, np.nan)
    assert draw_joints(photo, [far], anny.skeleton).shape == photo.shape
    np.testing.assert_array_equal(draw_joints(photo, [], anny.skeleton), photo)
