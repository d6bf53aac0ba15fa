"""Samples for training the hand network's lifting parts, and a network that learns from them."""

from pathlib import Path

import pytest
import torch

from i2l_lab.lifting import training as lifting
from i2l_lab.lifting.hand_samples import HandLiftingSampler, HandNoise
from i2l_lab.lifting.training import LiftingOptions, LiftingTrainer, start_heads
from i2l_lab.synthetic.hands import HandBank, HandSampler
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import transform_points
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.config import LiftingSizes
from i2l_meshnet.models.hand import GRID, hand_config
from i2l_meshnet.models.mediapipe import LANDMARK_CROP, Landmarks, crop_around

OFFSET = torch.tensor([2.0, 0.0])
"""Error of the landmarks in the bank, pixels."""


@pytest.fixture(scope="module")
def hands(hand: AnnyBody) -> HandSampler:
    return HandSampler(hand, shapes=16)


@pytest.fixture(scope="module")
def found(hands: HandSampler) -> HandBank:
    """A landmark network that finds the joints 2 px to the right, with halved depths, and misses ten of 300 hands."""
    drawn = hands.sample(300, torch.Generator().manual_seed(0))
    crop = crop_around(drawn.camera.project(drawn.mesh.joints))
    zoom = crop.affine[..., :2].det().sqrt()[:, None]
    camera = Camera(drawn.camera.focal * zoom, transform_points(crop.affine, drawn.camera.center[:, None])[:, 0])
    joints = drawn.mesh.joints
    flat = camera.project(joints) + OFFSET
    depth = (joints[..., 2:] - joints[:, :1, 2:]) * camera.focal[:, :1, None] / joints[:, :1, 2:] / 2
    presence = torch.ones(300)
    presence[:10] = 0.1
    landmarks = Landmarks(torch.cat([flat, depth], -1), presence, presence, joints - joints.mean(1, keepdim=True))
    return HandBank(landmarks, drawn.params, camera)


@pytest.fixture(scope="module")
def sampler(hand: AnnyBody, hands: HandSampler, found: HandBank) -> HandLiftingSampler:
    return HandLiftingSampler(hand, GRID, hands, found)


def test_missed_hands_are_left_out(sampler: HandLiftingSampler):
    assert len(sampler.found) == 290
    assert sampler.batch(3, 8, 0.5).keypoints.shape == (8, 21, 7)


def test_the_map_gives_what_the_network_answers(sampler: HandLiftingSampler):
    """The bank's network is linear, so the residuals of points and depths are small (crop pixels)."""
    assert float(sampler.residual.unflatten(1, (21, 6))[..., :3].abs().mean()) < 0.5


def test_landmarks_are_near_the_joints(hand: AnnyBody, hands: HandSampler, found: HandBank):
    """Detected and sampled hands alike: landmarks are a few pixels from the decoded lixel joints."""
    quiet = HandNoise(jitter=0.0, fingers=0.0, palm=0.0, depth_jitter=0.0, world_jitter=0.0)
    batch = HandLiftingSampler(hand, GRID, hands, found, quiet).batch(0, 40, 0.5)
    pixels, _ = GRID.decode(batch.joints)
    assert float((batch.keypoints[..., :2] - pixels - OFFSET).norm(dim=-1).median()) < 1.5
    assert float((pixels.mean(1) - LANDMARK_CROP[0] / 2).norm(dim=-1).mean()) < 40
    assert ((batch.vertices > 0) & (batch.vertices < 63)).all()


@pytest.mark.slow
def test_a_small_network_learns_and_is_saved(
    sampler: HandLiftingSampler, hand: AnnyBody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def quick_basis(meshes: torch.Tensor, rank: int) -> torch.Tensor:
        """The real basis decomposes a matrix of 1,609 rows and columns, which takes seconds."""
        return torch.linalg.qr(meshes[:rank].permute(1, 0, 2).flatten(1)[:, :rank])[0]

    monkeypatch.setattr(lifting, "surface_basis", quick_basis)
    torch.manual_seed(0)
    sizes = LiftingSizes(48, 1, joint_hidden=8, joint_channels=2, mesh_rank=16, mesh_hidden=8, mesh_channels=2)
    network = assembly.build(hand_config(hand, sizes), hand)
    start_heads(network, sampler)
    options = LiftingOptions(steps=12, batch=24, detected=0.5, learning_rate=5e-3, warmup=2, workers=0)
    trainer = LiftingTrainer(network, hand, sampler, options)
    rows: list[dict[str, float]] = []
    trainer.run(rows.append, every=3)
    assert rows[-1]["joints"] + rows[-1]["mesh"] < 0.85 * (rows[0]["joints"] + rows[0]["mesh"])
    checkpoint.save(trainer.average, tmp_path / "hand.safetensors")
    again = checkpoint.load(tmp_path / "hand.safetensors", hand)
    image = torch.rand(2, 3, *LANDMARK_CROP)
    with torch.inference_mode():
        first, second = trainer.average.eval()(image), again(image)
    torch.testing.assert_close(first.vertices, second.vertices)
    assert first.keypoints is not None
    assert first.keypoints.shape == (2, 21, 3)
    assert first.params is not None
    assert first.params.pose.shape == (2, 20, 3, 3)
