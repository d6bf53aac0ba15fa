import pytest
import torch

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.depth import MIN_DEPTH, solve_root_depth, solve_translation

CAMERA = Camera(torch.tensor([900.0, 950.0]).double(), torch.tensor([320.0, 250.0]).double())
POSITION = torch.tensor([0.4, -0.3, 3.7], dtype=torch.float64)


def random_mesh(seed: int, points: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.3, 0.8, 0.25], dtype=torch.float64)
    return torch.randn(points, 3, generator=generator, dtype=torch.float64) * scale


@pytest.mark.parametrize("position", [(2.5, 1.0, 3.0), (0.0, 0.0, 45.0), (-0.2, 0.1, 1.6)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_the_translation_is_recovered(
    position: tuple[float, float, float], dtype: torch.dtype, tolerance: float
) -> None:
    mesh, expected = random_mesh(0).clamp(-1, 1).to(dtype), torch.tensor(position, dtype=dtype)
    camera = CAMERA.to(dtype=dtype)
    found = solve_translation(mesh, camera.project(mesh + expected), camera)
    torch.testing.assert_close(found.translation, expected, rtol=tolerance, atol=tolerance)
    assert float(found.mean_error) < 1000 * tolerance


@pytest.mark.parametrize("seed", range(2))
def test_thirty_percent_of_outliers_hardly_move_the_mesh(seed: int) -> None:
    mesh = random_mesh(seed)
    pixels = CAMERA.project(mesh + POSITION)
    generator = torch.Generator().manual_seed(100 + seed)
    wrong = torch.rand(len(mesh), generator=generator) < 0.3
    pixels = torch.where(wrong[:, None], pixels + 150 * torch.rand(2, generator=generator) + 50, pixels)
    found = solve_translation(mesh, pixels, CAMERA)
    assert float((found.translation - POSITION).norm()) < 0.02
    assert float(found.median_error) < 1.0


def test_points_of_weight_0_are_ignored_unless_too_few_remain() -> None:
    mesh = random_mesh(2)
    pixels = CAMERA.project(mesh + POSITION)
    few = torch.zeros(len(mesh), dtype=torch.float64)
    few[:2] = 1
    torch.testing.assert_close(solve_translation(mesh, pixels, CAMERA, few).translation, POSITION)
    cut = mesh[:, 1] > 0  # half of the body is beyond the border, where its lixels accumulate
    pixels[cut, 1] = 300.0
    found = solve_translation(mesh, pixels, CAMERA, weights=(~cut).double())
    torch.testing.assert_close(found.translation, POSITION, rtol=0, atol=1e-6)
    assert float(found.mean_error) < 1e-6


def test_a_known_depth_is_kept() -> None:
    mesh = random_mesh(4)
    pixels = CAMERA.project(mesh + POSITION)
    found = solve_translation(mesh, pixels, CAMERA, root_depth=torch.tensor(5.0, dtype=torch.float64))
    assert float(found.translation[2]) == 5.0
    assert float(found.median_error) > 5
    # The mesh stays on the same ray from the camera.
    torch.testing.assert_close(found.translation[:2] / 5, POSITION[:2] / POSITION[2], rtol=0.1, atol=0.01)


def test_a_batch_equals_its_people_one_by_one() -> None:
    meshes = torch.stack([random_mesh(seed) for seed in range(3)])
    positions = torch.stack([POSITION, POSITION + 1, POSITION * 2])
    cameras = Camera(CAMERA.focal.expand(3, 2), CAMERA.center.expand(3, 2))
    pixels = cameras.project(meshes + positions[:, None])
    weights = torch.rand(3, meshes.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = solve_translation(meshes, pixels + 3 * torch.sin(pixels), cameras, weights)
    for i in range(3):
        alone = solve_translation(meshes[i], pixels[i] + 3 * torch.sin(pixels[i]), CAMERA, weights[i])
        torch.testing.assert_close(alone.translation, together.translation[i])
        torch.testing.assert_close(alone.mean_error, together.mean_error[i])


@pytest.mark.parametrize("flaw", ["mirrored", "point", "flat"])
def test_an_undetermined_depth_is_in_front_of_the_camera(flaw: str) -> None:
    mesh = random_mesh(6)
    pixels = CAMERA.project(mesh + POSITION)
    if flaw == "mirrored":
        pixels = 2 * CAMERA.center - pixels
    elif flaw == "point":
        pixels = CAMERA.center.expand_as(pixels)
    else:
        mesh = torch.zeros_like(mesh)
    found = solve_translation(mesh, pixels, CAMERA)
    assert found.translation.isfinite().all()
    assert float((mesh[:, 2] + found.translation[2]).min()) >= MIN_DEPTH - 1e-9


@pytest.fixture
def skeleton(anny: Body) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Root-relative joints of an upright body in the camera frame, the joint pairs of its bones, their lengths."""
    joints = anny(anny.rest_params()).joints.double()[:, [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0])
    pairs = torch.tensor(anny.skeleton.bone_indices)
    return joints - joints[anny.skeleton.root_index], pairs, (joints[pairs[:, 0]] - joints[pairs[:, 1]]).norm(dim=-1)


@pytest.mark.parametrize("depth", [1.5, 20.0])
def test_root_depth_from_bone_lengths(
    skeleton: tuple[torch.Tensor, torch.Tensor, torch.Tensor], anny: Body, depth: float
) -> None:
    joints, pairs, lengths = skeleton
    pixels = CAMERA.project(joints + torch.tensor([0.3, 0.2, depth], dtype=torch.float64))
    assert float(solve_root_depth(pixels, joints[:, 2], CAMERA, pairs, lengths)) == pytest.approx(depth, rel=1e-9)
    wrist, ankle = anny.skeleton.index("L_Wrist"), anny.skeleton.index("R_Ankle")
    pixels[wrist] += 300  # an outlier
    pixels[ankle] += 80
    weights = torch.ones(len(joints), dtype=torch.float64)
    weights[ankle] = 0
    found = solve_root_depth(pixels, joints[:, 2], CAMERA, pairs, lengths, weights)
    assert float(found) == pytest.approx(depth, rel=1e-6)
    one_point = CAMERA.center.expand(len(joints), 2)
    found = solve_root_depth(one_point, joints[:, 2], CAMERA, pairs, lengths * 0)
    assert float((joints[:, 2] + found).min()) >= MIN_DEPTH - 1e-9
