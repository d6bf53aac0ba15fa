"""Training the hand network's lifting parts: what the sampler draws, and that learning goes down."""

import pytest
import torch

from i2l_lab.lifting import training as lifting
from i2l_lab.lifting.hand_samples import HandLiftingSampler, HandNoise
from i2l_lab.lifting.training import LiftingOptions, LiftingTrainer, start_heads
from i2l_lab.synthetic.hands import HandBank, HandSampler
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import transform_points
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.config import LiftingSizes
from i2l_meshnet.models.hand import GRID, hand_config
from i2l_meshnet.models.mediapipe import LANDMARK_CROP, Landmarks, crop_around


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    body = load_body("anny-hand")
    assert isinstance(body, AnnyBody)
    return body


@pytest.fixture(scope="module")
def sampler(body: AnnyBody) -> HandLiftingSampler:
    """With the bank of a landmark network that finds the joints, 2 px to the right, depths halved."""
    generator = torch.Generator().manual_seed(0)
    hands = HandSampler(body, shapes=16)
    drawn = hands.sample(300, generator)
    crop = crop_around(drawn.camera.project(drawn.mesh.joints))
    zoom = crop.affine[..., :2].det().sqrt()[:, None]
    camera = Camera(drawn.camera.focal * zoom, transform_points(crop.affine, drawn.camera.center[:, None])[:, 0])
    joints = drawn.mesh.joints
    flat = camera.project(joints) + torch.tensor([2.0, 0.0])
    depth = (joints[..., 2:] - joints[:, :1, 2:]) * camera.focal[:, :1, None] / joints[:, :1, 2:] / 2
    presence = torch.ones(300)
    presence[:10] = 0.1
    found = Landmarks(torch.cat([flat, depth], -1), presence, presence, joints - joints.mean(1, keepdim=True))
    return HandLiftingSampler(body, GRID, hands, HandBank(found, drawn.params, camera))


def test_answers_without_a_hand_are_left_out(sampler: HandLiftingSampler):
    assert len(sampler.found) == 290


def test_the_map_gives_what_the_network_answers(sampler: HandLiftingSampler):
    """The bank's network answers linearly, so next to nothing is left over of points and depths, in crop pixels."""
    assert float(sampler.residual.unflatten(1, (21, 6))[..., :3].abs().mean()) < 0.5


def test_batches_follow_from_their_number(sampler: HandLiftingSampler):
    first, again, other = sampler.batch(3, 8, 0.5), sampler.batch(3, 8, 0.5), sampler.batch(4, 8, 0.5)
    assert torch.equal(first.keypoints, again.keypoints)
    assert not torch.equal(first.keypoints, other.keypoints)
    assert first.keypoints.shape == (8, 21, 7)


def test_what_is_found_lies_at_the_joints(sampler: HandLiftingSampler):
    """Drawn and sampled hands alike: landmarks a few pixels from where the lixel joints are decoded to."""
    quiet = HandNoise(jitter=0.0, fingers=0.0, palm=0.0, depth_jitter=0.0, world_jitter=0.0)
    still = HandLiftingSampler(sampler.body, GRID, sampler.hands, HandBank(*_parts(sampler)), quiet)
    batch = still.batch(0, 40, 0.5)
    pixels, _ = GRID.decode(batch.joints)
    assert float((batch.keypoints[..., :2] - pixels - torch.tensor([2.0, 0.0])).norm(dim=-1).median()) < 1.5
    middle = LANDMARK_CROP[0] / 2
    assert float((pixels.mean(1) - middle).norm(dim=-1).mean()) < 40
    assert ((batch.vertices > 0) & (batch.vertices < 63)).all()


def _parts(sampler: HandLiftingSampler) -> tuple:
    """The bank's fields, from the features that the sampler keeps of it."""
    found = sampler.found
    points = torch.cat([found[..., :2], found[..., 3:4]], -1)
    landmarks = Landmarks(points, found[:, 0, 2], found[:, 0, 2], found[..., 4:])
    return landmarks, sampler.params, sampler.camera


@pytest.mark.slow
def test_a_small_network_learns_and_is_kept(
    sampler: HandLiftingSampler, body: AnnyBody, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    def quick_basis(meshes: torch.Tensor, rank: int) -> torch.Tensor:
        """The real one decomposes a matrix of 1,609 rows and columns, which takes seconds."""
        return torch.linalg.qr(meshes[:rank].permute(1, 0, 2).flatten(1)[:, :rank])[0]

    monkeypatch.setattr(lifting, "surface_basis", quick_basis)
    torch.manual_seed(0)
    sizes = LiftingSizes(48, 1, joint_hidden=8, joint_channels=2, mesh_rank=16, mesh_hidden=8, mesh_channels=2)
    network = assembly.build(hand_config(body, sizes), body)
    start_heads(network, sampler)
    options = LiftingOptions(steps=12, batch=24, detected=0.5, learning_rate=5e-3, warmup=2, workers=0)
    trainer = LiftingTrainer(network, body, sampler, options)
    rows: list[dict[str, float]] = []
    trainer.run(rows.append, every=3)
    assert rows[-1]["joints"] + rows[-1]["mesh"] < 0.85 * (rows[0]["joints"] + rows[0]["mesh"])
    path = tmp_path / "hand.safetensors"
    checkpoint.save(trainer.average, path)
    again = checkpoint.load(path, body)
    image = torch.rand(2, 3, *LANDMARK_CROP)
    with torch.inference_mode():
        first, second = trainer.average.eval()(image), again(image)
    torch.testing.assert_close(first.vertices, second.vertices)
    assert first.keypoints is not None
    assert first.keypoints.shape == (2, 21, 3)
    assert first.params is not None
    assert first.params.pose.shape == (2, 20, 3, 3)
