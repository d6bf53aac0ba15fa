"""Training of the default network: deterministic, resumable, and it learns."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from i2l_lab.lifting import training as lifting
from i2l_lab.lifting.samples import LiftingSampler, NoiseOptions
from i2l_lab.lifting.training import LiftingOptions, LiftingTrainer, lifting_losses, start_heads, surface_basis
from i2l_lab.synthetic.cameras import ViewSampler
from i2l_lab.synthetic.detections import DetectionBank
from i2l_lab.synthetic.poses import PoseBank, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.anny import AnnyBody, rendered_keypoints
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.bodies.skinning import global_rotations
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.models.assembly import build
from i2l_meshnet.models.config import LiftingSizes
from i2l_meshnet.models.keypoint import GRID, keypoint_config

OPTIONS = LiftingOptions(steps=4, batch=32, warmup=2, workers=0)


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    body = load_body("anny")
    assert isinstance(body, AnnyBody)
    return body


@pytest.fixture(scope="module")
def sampler(body: AnnyBody) -> LiftingSampler:
    poses = PoseSampler(body, PoseBank.build(body, None, procedural=300))
    people = BodySampler(poses, ShapeSampler(body, size=64), ViewSampler(body))
    sample = people.sample(40, torch.Generator().manual_seed(1))
    zoom = 0.4
    camera = Camera(sample.camera.focal * zoom, torch.tensor([96.0, 128.0]).expand(40, 2))
    pixels = camera.project(sample.mesh.vertices)
    depth = sample.mesh.joints[:, body.skeleton.root_index, 2]
    vertices = torch.cat([pixels, sample.mesh.vertices[..., 2:] - depth[:, None, None]], 2)
    found = rendered_keypoints() @ pixels + 2 * torch.randn(40, 26, 2, generator=torch.Generator().manual_seed(2))
    keypoints = torch.cat([found, torch.full((40, 26, 1), 0.7)], 2)
    bank = DetectionBank(keypoints, vertices, depth, camera, sample.params)
    return LiftingSampler(body, GRID, people, bank, seed=3)


@pytest.fixture(scope="module", autouse=True)
def one_basis() -> Iterator[None]:
    """All trainers here have the same samples and so the same basis, which takes seconds to make."""
    made: dict[int, torch.Tensor] = {}

    def basis(meshes: torch.Tensor, rank: int) -> torch.Tensor:
        if rank not in made:
            made[rank] = surface_basis(meshes, rank)
        return made[rank].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifting, "surface_basis", basis)
        yield


def trainer(body: AnnyBody, sampler: LiftingSampler, options: LiftingOptions = OPTIONS) -> LiftingTrainer:
    torch.manual_seed(0)
    sizes = LiftingSizes(
        32, 1, joint_hidden=16, joint_channels=4, mesh_rank=48, mesh_hidden=16, mesh_channels=4, fit=True
    )
    network = build(keypoint_config(body, sizes), body)
    start_heads(network, sampler)
    return LiftingTrainer(network, body, sampler, options)


def test_a_batch_depends_on_its_number_alone(sampler: LiftingSampler):
    first = sampler.batch(5, 16, 0.25)
    sampler.batch(9, 16, 0.25)
    again = sampler.batch(5, 16, 0.25)
    torch.testing.assert_close(first.keypoints, again.keypoints, atol=0, rtol=0)
    torch.testing.assert_close(first.vertices, again.vertices, atol=0, rtol=0)
    assert not torch.equal(first.keypoints, sampler.batch(6, 16, 0.25).keypoints)


def test_targets_agree_with_each_other(body: AnnyBody, sampler: LiftingSampler):
    """The view's vertices are the posed body in that frame, and lie where the lixels say."""
    batch = sampler.batch(0, 24, 0.5)
    root = batch.rotations[:, :1]
    local = batch.rotations[:, [max(p, 0) for p in body.parents]].mT @ batch.rotations
    pose = torch.cat([root, local[:, 1:]], 1)
    mesh = body(BodyParams(pose, batch.shape, torch.zeros(24, 3)))
    posed = mesh.vertices - mesh.joints[:, body.skeleton.root_index, None]
    torch.testing.assert_close(posed, batch.view_vertices, atol=2e-3, rtol=0)
    torch.testing.assert_close(body.joint_regressor @ batch.vertices, batch.joints, atol=0.7, rtol=0)
    depth = GRID.decode(batch.vertices)[1]
    relative = batch.view_vertices[..., 2] + (depth - batch.view_vertices[..., 2]).mean(1, keepdim=True)
    torch.testing.assert_close(depth, relative, atol=2e-3, rtol=0)


def test_keypoints_lie_near_the_body_where_the_detector_is_sure(body: AnnyBody, sampler: LiftingSampler):
    batch = sampler.batch(1, 200, 0.3)
    assert body.keypoint_regressor is not None
    true = GRID.decode(body.keypoint_regressor @ batch.vertices)[0]
    off = (batch.keypoints[..., :2] - true).norm(dim=-1)
    sure = batch.keypoints[..., 2] > 0.5
    assert off[sure].median() < 5
    assert ((batch.keypoints[..., 2] >= 0) & (batch.keypoints[..., 2] <= 1)).all()


def test_camera_rotations_of_the_rest_pose_are_the_root_s(body: AnnyBody):
    pose = body.rest_params(2).pose.clone()
    pose[:, 0] = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    found = global_rotations(pose, body.parents)
    torch.testing.assert_close(found, pose[:, :1].expand_as(found))


def test_surfaces_are_spanned_by_few_functions(body: AnnyBody, sampler: LiftingSampler):
    meshes = torch.cat([sampler.batch(i, 128, 0.0).view_vertices for i in range(3)])
    basis = surface_basis(meshes, 96)
    torch.testing.assert_close(basis.T @ basis, torch.eye(96), atol=1e-4, rtol=0)
    other = sampler.batch(9, 32, 0.0).view_vertices
    assert (other - basis @ (basis.T @ other)).norm(dim=-1).mean() < 0.002


@pytest.mark.slow
def test_training_is_the_same_twice_and_after_a_stop(body: AnnyBody, sampler: LiftingSampler, tmp_path: Path):
    whole = trainer(body, sampler)
    reports: list[dict[str, float]] = []
    whole.run(reports.append, every=2)
    assert [report["step"] for report in reports] == [2, 4]
    path = tmp_path / "state.pt"
    stopped = trainer(body, sampler)
    stopped.run(lambda _: None, save_to=path, until=2)
    resumed = trainer(body, sampler)
    resumed.resume(path)
    assert resumed.step == 2
    resumed.run(lambda _: None)
    for first, second in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        torch.testing.assert_close(first, second, atol=0, rtol=0)


@pytest.mark.parametrize("heatmaps", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_learns_a_batch(body: AnnyBody, sampler: LiftingSampler, heatmaps: bool):
    count, size = (8, 16) if heatmaps else (30, 32)  # Heatmaps of all vertices take most of the time.
    options = dataclasses.replace(OPTIONS, steps=count, learning_rate=5e-3, heatmaps=heatmaps, meshed=1.0)
    training = trainer(body, sampler, options)
    batch = sampler.batch(0, size, 0.25)

    def total() -> float:
        with torch.no_grad():
            return float(sum(lifting_losses(training.network, body, batch, options, "fp32").values()))

    before = total()
    for _ in range(count):
        training.train_step(batch)
    assert total() < (0.9 if heatmaps else 0.8) * before


def test_heads_start_from_the_mean_body(body: AnnyBody, sampler: LiftingSampler):
    network = trainer(body, sampler).network
    with torch.inference_mode():
        feature = torch.zeros(1, 32)
        found, mean = network.mesh_branch.centers(feature)[0], sampler.batch(50, 256, 0.0).vertices.mean(0)
    assert (found - mean).abs().mean() < 3


def test_keypoint_estimator_is_left_alone(body: AnnyBody, sampler: LiftingSampler):
    training = trainer(body, sampler)
    before = [parameter.clone() for parameter in training.network.pose_net.estimator.parameters()]
    training.train_step(sampler.batch(0, 32, 0.25))
    for first, second in zip(before, training.network.pose_net.estimator.parameters(), strict=True):
        assert torch.equal(first, second)


def test_auto_precision_is_what_the_processor_has(monkeypatch: pytest.MonkeyPatch):
    """ "auto" takes bfloat16 only where the hardware computes in it."""
    monkeypatch.setattr(lifting, "supported_precisions", lambda: ("fp32",))
    assert OPTIONS.chosen_precision() == "fp32"
    monkeypatch.setattr(lifting, "supported_precisions", lambda: ("fp32", "bf16"))
    assert OPTIONS.chosen_precision() == "bf16"
    assert dataclasses.replace(OPTIONS, precision="fp32").chosen_precision() == "fp32"


def test_a_run_continues_in_its_own_precision(body: AnnyBody, sampler: LiftingSampler, tmp_path: Path):
    training = trainer(body, sampler)
    training.save(tmp_path / "state.pt")
    training.precision = "bf16" if training.precision == "fp32" else "fp32"
    with pytest.raises(InputError, match=training.precision):
        training.resume(tmp_path / "state.pt")


def test_a_file_that_is_no_state_is_refused(body: AnnyBody, sampler: LiftingSampler, tmp_path: Path):
    path = tmp_path / "state.pt"
    torch.save({"step": 3}, path)
    with pytest.raises(FileError):
        trainer(body, sampler).resume(path)


def test_rows_are_trained_by_their_coefficients_in_the_basis(body: AnnyBody, sampler: LiftingSampler):
    training = trainer(body, sampler, dataclasses.replace(OPTIONS, clip=1e9))
    training.train_step(sampler.batch(0, 32, 0.25))
    for row, coefficients in zip(training.rows, training.coefficients, strict=True):
        assert row.grad is not None
        assert coefficients.grad is not None
        torch.testing.assert_close(coefficients.grad, training.basis.T @ row.grad)
        torch.testing.assert_close(row.detach(), training.basis @ coefficients.detach())


def test_biases_and_norms_do_not_decay(body: AnnyBody, sampler: LiftingSampler):
    """Adam moves a parameter by the learning rate at most; decay by 100 times the rate shrinks a matrix by a tenth."""
    rate = 1e-3
    training = trainer(body, sampler, dataclasses.replace(OPTIONS, learning_rate=rate, weight_decay=100.0, warmup=1))
    before = [parameter.detach().clone() for parameter in training.trained]
    training.train_step(sampler.batch(0, 32, 0.25))
    decayed = 0
    for old, parameter in zip(before, training.trained, strict=True):
        # What has no part in the heads' centres has no gradient, and stays.
        share = 0.9 if old.ndim > 1 and parameter.grad is not None else 1.0
        decayed += share < 1
        assert float((parameter.detach() - share * old).abs().max()) < 1.1 * rate
    assert decayed > 5


def test_what_lies_outside_the_crop_is_seen_unsurely(body: AnnyBody, sampler: LiftingSampler):
    """Bodies reach beyond crops of cut boxes; keypoints that are not moved tell where they truly lie."""
    off = dict.fromkeys("least most jitter build head hips feet lost lost_more".split(), 0.0)
    still = NoiseOptions(clean=1.0, **off)
    batch = LiftingSampler(body, GRID, sampler.people, sampler.bank, still, seed=3).batch(0, 256, 0.0)
    x, y, confidence = batch.keypoints.unbind(-1)
    height, width = GRID.crop_size
    outside = (x < -4) | (y < -4) | (x > width + 4) | (y > height + 4)
    assert outside.sum() > 50
    assert float(confidence[outside].max()) <= 0.3
    # The bank's detections have 0.7.
    assert float(confidence[~outside].median()) >= 0.7
