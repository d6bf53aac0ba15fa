"""Training of the default network: deterministic, resumable, and it learns."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from i2l_lab.lifting import training as lifting
from i2l_lab.lifting.samples import LiftingSampler, NoiseOptions
from i2l_lab.lifting.training import LiftingOptions, LiftingTrainer, lifting_losses, start_heads, surface_basis
from i2l_lab.synthetic.detections import DetectionBank
from i2l_lab.synthetic.samples import BodySampler
from i2l_meshnet.bodies.anny import AnnyBody, rendered_keypoints
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.models.assembly import build
from i2l_meshnet.models.config import LiftingSizes
from i2l_meshnet.models.keypoint import GRID, keypoint_config

OPTIONS = LiftingOptions(steps=4, batch=32, warmup=2, workers=0)


@pytest.fixture(scope="module")
def samples(anny: AnnyBody, sampler: BodySampler) -> LiftingSampler:
    sample = sampler.sample(40, torch.Generator().manual_seed(1))
    camera = Camera(sample.camera.focal * 0.4, torch.tensor([96.0, 128.0]).expand(40, 2))
    pixels = camera.project(sample.mesh.vertices)
    depth = sample.mesh.joints[:, anny.skeleton.root_index, 2]
    vertices = torch.cat([pixels, sample.mesh.vertices[..., 2:] - depth[:, None, None]], 2)
    found = rendered_keypoints() @ pixels + 2 * torch.randn(40, 26, 2, generator=torch.Generator().manual_seed(2))
    keypoints = torch.cat([found, torch.full((40, 26, 1), 0.7)], 2)
    bank = DetectionBank(keypoints, vertices, depth, camera, sample.params)
    return LiftingSampler(anny, GRID, sampler, bank, seed=3)


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


def trainer(body: AnnyBody, samples: LiftingSampler, options: LiftingOptions = OPTIONS) -> LiftingTrainer:
    torch.manual_seed(0)
    sizes = LiftingSizes(
        32, 1, joint_hidden=16, joint_channels=4, mesh_rank=48, mesh_hidden=16, mesh_channels=4, fit=True
    )
    network = build(keypoint_config(body, sizes), body)
    start_heads(network, samples)
    return LiftingTrainer(network, body, samples, options)


def test_a_batch_depends_on_its_number_alone(samples: LiftingSampler):
    first = samples.batch(5, 16, 0.25)
    samples.batch(9, 16, 0.25)
    again = samples.batch(5, 16, 0.25)
    assert torch.equal(first.keypoints, again.keypoints)
    assert torch.equal(first.vertices, again.vertices)
    assert not torch.equal(first.keypoints, samples.batch(6, 16, 0.25).keypoints)


def test_targets_agree_with_each_other(anny: AnnyBody, samples: LiftingSampler):
    """The view's vertices are the posed body in that frame, and the lixels decode to their depths."""
    batch = samples.batch(0, 24, 0.5)
    root = batch.rotations[:, :1]
    local = batch.rotations[:, [max(p, 0) for p in anny.parents]].mT @ batch.rotations
    pose = torch.cat([root, local[:, 1:]], 1)
    mesh = anny(BodyParams(pose, batch.shape, torch.zeros(24, 3)))
    posed = mesh.vertices - mesh.joints[:, anny.skeleton.root_index, None]
    torch.testing.assert_close(posed, batch.view_vertices, atol=2e-3, rtol=0)
    torch.testing.assert_close(anny.joint_regressor @ batch.vertices, batch.joints, atol=0.7, rtol=0)
    depth = GRID.decode(batch.vertices)[1]
    relative = batch.view_vertices[..., 2] + (depth - batch.view_vertices[..., 2]).mean(1, keepdim=True)
    torch.testing.assert_close(depth, relative, atol=2e-3, rtol=0)


def test_confident_keypoints_are_near_the_body(anny: AnnyBody, samples: LiftingSampler):
    batch = samples.batch(1, 200, 0.3)
    assert anny.keypoint_regressor is not None
    true = GRID.decode(anny.keypoint_regressor @ batch.vertices)[0]
    off = (batch.keypoints[..., :2] - true).norm(dim=-1)
    confidence = batch.keypoints[..., 2]
    assert off[confidence > 0.5].median() < 5
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_a_few_functions_span_the_surfaces(samples: LiftingSampler):
    meshes = torch.cat([samples.batch(i, 128, 0.0).view_vertices for i in range(3)])
    basis = surface_basis(meshes, 96)
    torch.testing.assert_close(basis.T @ basis, torch.eye(96), atol=1e-4, rtol=0)
    other = samples.batch(9, 32, 0.0).view_vertices
    assert (other - basis @ (basis.T @ other)).norm(dim=-1).mean() < 0.002


@pytest.mark.slow
def test_training_is_the_same_twice_and_after_a_stop(anny: AnnyBody, samples: LiftingSampler, tmp_path: Path):
    whole = trainer(anny, samples)
    reports: list[dict[str, float]] = []
    whole.run(reports.append, every=2)
    assert [report["step"] for report in reports] == [2, 4]
    path = tmp_path / "state.pt"
    trainer(anny, samples).run(lambda _: None, save_to=path, until=2)
    resumed = trainer(anny, samples)
    resumed.resume(path)
    assert resumed.step == 2
    resumed.run(lambda _: None)
    for first, second in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("heatmaps", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_learns_a_batch(anny: AnnyBody, samples: LiftingSampler, heatmaps: bool):
    """Heads start from the mean body, the loss falls, and the keypoint estimator does not change."""
    count, size = (8, 16) if heatmaps else (30, 32)  # Heatmaps of all vertices take most of the time.
    options = dataclasses.replace(OPTIONS, steps=count, learning_rate=5e-3, heatmaps=heatmaps, meshed=1.0)
    training = trainer(anny, samples, options)
    network = training.network
    estimator = [parameter.clone() for parameter in network.pose_net.estimator.parameters()]
    batch = samples.batch(0, size, 0.25)

    def total() -> float:
        with torch.no_grad():
            return float(sum(lifting_losses(network, anny, batch, options, "fp32").values()))

    with torch.inference_mode():
        found = network.mesh_branch.centers(torch.zeros(1, 32))[0]
    assert (found - samples.batch(50, 256, 0.0).vertices.mean(0)).abs().mean() < 3
    before = total()
    for _ in range(count):
        training.train_step(batch)
    assert total() < (0.9 if heatmaps else 0.8) * before
    assert all(map(torch.equal, estimator, network.pose_net.estimator.parameters()))


def test_auto_precision_is_one_that_the_processor_supports(monkeypatch: pytest.MonkeyPatch):
    for supported, expected in ((("fp32",), "fp32"), (("fp32", "bf16"), "bf16")):
        monkeypatch.setattr(lifting, "supported_precisions", lambda supported=supported: supported)
        assert OPTIONS.chosen_precision() == expected
    assert dataclasses.replace(OPTIONS, precision="fp32").chosen_precision() == "fp32"


def test_only_a_training_state_of_the_same_precision_is_resumed(
    anny: AnnyBody, samples: LiftingSampler, tmp_path: Path
):
    training, path = trainer(anny, samples), tmp_path / "state.pt"
    training.save(path)
    training.precision = "bf16" if training.precision == "fp32" else "fp32"
    with pytest.raises(InputError) as caught:
        training.resume(path)
    assert caught.value.argument == "training.precision"
    torch.save({"step": 3}, path)
    with pytest.raises(FileError, match=r"state\.pt"):
        training.resume(path)


def test_rows_are_trained_by_their_coefficients_in_the_basis(anny: AnnyBody, samples: LiftingSampler):
    training = trainer(anny, samples, dataclasses.replace(OPTIONS, clip=1e9))
    training.train_step(samples.batch(0, 32, 0.25))
    for row, coefficients in zip(training.rows, training.coefficients, strict=True):
        assert row.grad is not None
        assert coefficients.grad is not None
        torch.testing.assert_close(coefficients.grad, training.basis.T @ row.grad)
        torch.testing.assert_close(row.detach(), training.basis @ coefficients.detach())


def test_biases_and_norms_do_not_decay(anny: AnnyBody, samples: LiftingSampler):
    """Adam moves a parameter by the learning rate at most; decay by 100 times the rate shrinks a matrix by a tenth."""
    rate = 1e-3
    training = trainer(anny, samples, dataclasses.replace(OPTIONS, learning_rate=rate, weight_decay=100.0, warmup=1))
    before = [parameter.detach().clone() for parameter in training.trained]
    training.train_step(samples.batch(0, 32, 0.25))
    decayed = 0
    for old, parameter in zip(before, training.trained, strict=True):
        # A parameter that does not affect the heads' centres has no gradient and does not change.
        share = 0.9 if old.ndim > 1 and parameter.grad is not None else 1.0
        decayed += share < 1
        assert float((parameter.detach() - share * old).abs().max()) < 1.1 * rate
    assert decayed > 5


def test_points_outside_the_crop_have_low_confidence(anny: AnnyBody, samples: LiftingSampler):
    """Bodies reach beyond crops of truncated boxes; keypoints without noise are at their true positions."""
    off = dict.fromkeys("minimum maximum jitter build head hips feet lost lost_more".split(), 0.0)
    still = NoiseOptions(clean=1.0, **off)
    batch = LiftingSampler(anny, GRID, samples.people, samples.bank, still, seed=3).batch(0, 256, 0.0)
    x, y, confidence = batch.keypoints.unbind(-1)
    height, width = GRID.crop_size
    outside = (x < -4) | (y < -4) | (x > width + 4) | (y > height + 4)
    assert outside.sum() > 50
    assert float(confidence[outside].max()) <= 0.3
    # The confidence of the bank's detections is 0.7.
    assert float(confidence[~outside].median()) >= 0.7
