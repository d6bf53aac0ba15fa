import pytest
import torch

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.depth import MIN_DEPTH, solve_root_depth, solve_translation

CAMERA = Camera(torch.tensor([900.0, 950.0]).double(), torch.tensor([320.0, 250.0]).double())
PLACE = torch.tensor([0.4, -0.3, 3.7], dtype=torch.float64)


def random_mesh(seed: int, points: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.3, 0.8, 0.25], dtype=torch.float64)
    return torch.randn(points, 3, generator=generator, dtype=torch.float64) * scale


@pytest.mark.parametrize("place", [(0.4, -0.3, 3.7), (2.5, 1.0, 3.0), (0.0, 0.0, 45.0), (-0.2, 0.1, 1.6)])
def test_the_place_is_recovered_exactly(place: tuple[float, float, float]) -> None:
    mesh, where = random_mesh(0).clamp(-1, 1), torch.tensor(place, dtype=torch.float64)
    found = solve_translation(mesh, CAMERA.project(mesh + where), CAMERA)
    torch.testing.assert_close(found.translation, where, rtol=1e-9, atol=1e-9)
    assert float(found.mean_error) < 1e-6


def test_a_posed_body_in_float32(anny: Body) -> None:
    vertices = anny(anny.rest_params()).vertices
    camera = CAMERA.to(dtype=torch.float32)
    where = PLACE.float()
    found = solve_translation(vertices, camera.project(vertices + where), camera)
    torch.testing.assert_close(found.translation, where, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_thirty_percent_of_wrong_points_hardly_move_it(seed: int) -> None:
    mesh = random_mesh(seed)
    pixels = CAMERA.project(mesh + PLACE)
    generator = torch.Generator().manual_seed(100 + seed)
    wrong = torch.rand(len(mesh), generator=generator) < 0.3
    pixels = torch.where(wrong[:, None], pixels + 150 * torch.rand(2, generator=generator) + 50, pixels)
    found = solve_translation(mesh, pixels, CAMERA)
    assert float((found.translation - PLACE).norm()) < 0.02
    assert float(found.median_error) < 1.0
    plain = solve_translation(mesh, pixels, CAMERA, iterations=0)
    assert float((plain.translation - PLACE).norm()) > 0.1


def test_a_noisy_mesh_is_placed_without_bias() -> None:
    mesh = random_mesh(1, 2000)
    pixels = CAMERA.project(mesh + PLACE)
    pixels = pixels + 2 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = solve_translation(mesh, pixels, CAMERA)
    assert float((found.translation - PLACE).norm()) < 0.01
    assert float(found.median_error) == pytest.approx(2 * 1.1774, rel=0.05)  # the median of a Rayleigh distribution


def test_truncated_points_do_not_count() -> None:
    mesh = random_mesh(2)
    pixels = CAMERA.project(mesh + PLACE)
    cut = mesh[:, 1] > 0  # half of the body is beyond the border: its lixels pile up there
    pixels[cut, 1] = 300.0
    found = solve_translation(mesh, pixels, CAMERA, weights=(~cut).double())
    torch.testing.assert_close(found.translation, PLACE, rtol=0, atol=1e-6)
    assert float(found.mean_error) < 1e-6


def test_all_points_count_where_too_few_have_weight() -> None:
    mesh = random_mesh(3)
    weights = torch.zeros(len(mesh), dtype=torch.float64)
    weights[:2] = 1
    found = solve_translation(mesh, CAMERA.project(mesh + PLACE), CAMERA, weights)
    torch.testing.assert_close(found.translation, PLACE, rtol=0, atol=1e-8)


def test_a_known_depth_is_kept() -> None:
    mesh = random_mesh(4)
    pixels = CAMERA.project(mesh + PLACE)
    found = solve_translation(mesh, pixels, CAMERA, root_depth=torch.tensor(5.0, dtype=torch.float64))
    assert float(found.translation[2]) == 5.0
    assert float(found.median_error) > 5
    # Seen along the same ray, so in the same direction from the camera.
    torch.testing.assert_close(found.translation[:2] / 5, PLACE[:2] / PLACE[2], rtol=0.1, atol=0.01)


def test_a_batch_is_its_people_one_by_one() -> None:
    meshes = torch.stack([random_mesh(seed) for seed in range(3)])
    places = torch.stack([PLACE, PLACE + 1, PLACE * 2])
    cameras = Camera(CAMERA.focal.expand(3, 2), CAMERA.center.expand(3, 2))
    pixels = cameras.project(meshes + places[:, None])
    weights = torch.rand(3, meshes.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = solve_translation(meshes, pixels + 3 * torch.sin(pixels), cameras, weights)
    for i in range(3):
        alone = solve_translation(meshes[i], pixels[i] + 3 * torch.sin(pixels[i]), CAMERA, weights[i])
        torch.testing.assert_close(alone.translation, together.translation[i])
        torch.testing.assert_close(alone.mean_error, together.mean_error[i])


@pytest.mark.parametrize("flaw", ["mirrored", "point", "flat"])
def test_a_depth_that_cannot_be_told_is_positive(flaw: str) -> None:
    mesh = random_mesh(6)
    pixels = CAMERA.project(mesh + PLACE)
    if flaw == "mirrored":
        pixels = 2 * CAMERA.center - pixels
    elif flaw == "point":
        pixels = CAMERA.center.expand_as(pixels)
    else:
        mesh = torch.zeros_like(mesh)
    found = solve_translation(mesh, pixels, CAMERA)
    assert found.translation.isfinite().all()
    assert float((mesh[:, 2] + found.translation[2]).min()) >= MIN_DEPTH - 1e-9


def skeleton_of(anny: Body) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    joints = anny(anny.rest_params()).joints.double()
    pairs = torch.tensor(anny.skeleton.bone_indices)
    return joints - joints[anny.skeleton.root_index], pairs, (joints[pairs[:, 0]] - joints[pairs[:, 1]]).norm(dim=-1)


@pytest.mark.parametrize("depth", [1.5, 3.7, 20.0])
def test_root_depth_from_bone_lengths_is_exact(anny: Body, depth: float) -> None:
    joints, pairs, lengths = skeleton_of(anny)
    # Native axes stand along z: upright before the camera instead.
    joints = joints[:, [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0])
    where = torch.tensor([0.3, 0.2, depth], dtype=torch.float64)
    found = solve_root_depth(CAMERA.project(joints + where), joints[:, 2], CAMERA, pairs, lengths)
    assert float(found) == pytest.approx(depth, rel=1e-9)


def test_root_depth_leaves_wrong_and_hidden_bones_out(anny: Body) -> None:
    joints, pairs, lengths = skeleton_of(anny)
    joints = joints[:, [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0])
    pixels = CAMERA.project(joints + PLACE)
    wrist, ankle = anny.skeleton.index("L_Wrist"), anny.skeleton.index("R_Ankle")
    pixels[wrist] += 300
    pixels[ankle] += 80
    weights = torch.ones(len(joints), dtype=torch.float64)
    weights[ankle] = 0
    found = solve_root_depth(pixels, joints[:, 2], CAMERA, pairs, lengths, weights)
    assert float(found) == pytest.approx(3.7, rel=1e-6)


def test_root_depth_is_in_front_whatever_the_lengths(anny: Body) -> None:
    joints, pairs, lengths = skeleton_of(anny)
    found = solve_root_depth(CAMERA.center.expand(len(joints), 2), joints[:, 2], CAMERA, pairs, lengths * 0)
    assert float((joints[:, 2] + found).min()) >= MIN_DEPTH - 1e-9
