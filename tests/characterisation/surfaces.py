"""Everything that these tests import from the project: if something moves, only this file changes.

Most of it is public (docs/architecture.md), except `slim_networks`, `pretend_assets`, `asset` and what follows them.
"""

import copy
import dataclasses
import functools
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from i2l_lab.cli import LAB
from i2l_lab.lifting.hand_samples import HandLiftingSampler
from i2l_lab.lifting.samples import LiftingSampler
from i2l_lab.lifting.training import LiftingOptions, LiftingTrainer, start_heads
from i2l_lab.synthetic.cameras import ViewSampler
from i2l_lab.synthetic.detections import DetectionBank
from i2l_lab.synthetic.hands import HandBank, HandSampler
from i2l_lab.synthetic.pictures import PictureMix
from i2l_lab.synthetic.poses import PoseBank, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet import assets
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.anny import AnnyBody, rendered_keypoints
from i2l_meshnet.cli import PRODUCT as PRODUCT
from i2l_meshnet.cli import main
from i2l_meshnet.data.augmentation import RandomAugmentation
from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.mixture import EpochSampler, Mixture, union_skeleton
from i2l_meshnet.data.sources import open_source
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import transform_points
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.assembly import build, published_config
from i2l_meshnet.models.config import LiftingSizes
from i2l_meshnet.models.hand import GRID as HAND_GRID
from i2l_meshnet.models.hand import hand_config
from i2l_meshnet.models.keypoint import GRID as KEYPOINT_GRID
from i2l_meshnet.models.keypoint import keypoint_config
from i2l_meshnet.models.mediapipe import Landmarks, crop_around

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests" / name) for name in ("training", "lab")]
from test_pictures import make_maker  # noqa: E402
from tiny_training import slim_networks as slim_networks  # noqa: E402

EXAMPLES = ROOT / "examples"

LAB_COMMANDS = ("lift", "lift-hand", "synthesize")
lab_main = LAB.main
"""The command line of `LAB_COMMANDS`."""
MOVED_MODULES: dict[str, str] = {}
"""Old → new names of modules that the docs import and that were moved."""


def meshnet(*arguments: object) -> None:
    """Runs a command, which must succeed."""
    given = [str(argument) for argument in arguments]
    code = (lab_main if given[0] in LAB_COMMANDS else main)(given)
    assert code == 0, f"{' '.join(given)} ended with exit code {code}"


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The output of a command with --help."""
    words = command.split()
    with pytest.raises(SystemExit) as leaving:
        (lab_main if words[:1] and words[0] in LAB_COMMANDS else main)([*words, "--help"])
    assert leaving.value.code == 0
    return capsys.readouterr().out


def pretend_assets(monkeypatch: pytest.MonkeyPatch, known: dict[str, Path]) -> None:
    """Use the given files as assets, without fetching."""
    monkeypatch.setattr(assets, "ensure", known.__getitem__)
    monkeypatch.setattr(assets, "find", known.get)


def asset(name: str) -> Path:
    """A fetched asset. Skip the test if it has not been fetched."""
    found = assets.find(name)
    if found is None:
        pytest.skip(f"the asset has not been fetched: run `i2l-meshnet assets {name}`")
    return found


def drawn_network(body: str, bodies: Path | None, path: Path, crop: int = 64) -> Path:
    """Save a published network with random weights from NumPy. Call it in `slim_networks`.

    Trained weights would differ between processors by many percent, as Adam amplifies rounding. These weights are the
    same everywhere, and noise of 1e-5 in the image moves vertices by only 1e-3 of the mesh's size. crop: side, pixels.
    """
    model = load_body(body, bodies)
    config = published_config(model, "resnet18")
    grid = dataclasses.replace(config.grid, shape=(crop // 4,) * 3, crop_size=(crop, crop))
    network = build(dataclasses.replace(config, grid=grid), model)
    # Heatmaps with a peak; upright people with slightly bent joints.
    factors = {"conv_x.0.weight": 30.0, "conv_y.0.weight": 30.0, "fc_shape.0.weight": 0.05, "fc_pose.0.weight": 0.1}
    upright = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(config.bones)
    upright[3] = -1  # y and z of the root point the other way
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                factor = next((factor for ending, factor in factors.items() if name.endswith(ending)), 1.0)
                bound = 1.4 * factor * math.sqrt(3 / weight[0].numel())
                weight.copy_(torch.from_numpy(generator.uniform(-bound, bound, weight.shape)))
            elif name.endswith("bias"):
                weight.copy_(upright if name.endswith("fc_pose.0.bias") else torch.zeros_like(weight))
    # A regressor counts as trained only in a snapshot of that stage.
    checkpoint.save(network, path, {"stage": "param"})
    return path


def train_lifting(trainer: LiftingTrainer, state: Path, until: int) -> list[dict[str, float]]:
    """Train up to a step and save the state. Return the mean losses of every second step."""
    rows: list[dict[str, float]] = []
    trainer.run(rows.append, every=2, save_to=state, until=until)
    return rows


SETTINGS = LiftingOptions(steps=20, batch=32, warmup=4, workers=0, weight_decay=0.5, average=0.9)


@functools.cache
def body_sampler() -> BodySampler:
    """People without assets: procedural poses."""
    body = load_body("anny")
    return BodySampler(
        PoseSampler(body, PoseBank.build(body, None, procedural=300)), ShapeSampler(body, size=64), ViewSampler(body)
    )


@functools.cache
def lifting_sampler() -> LiftingSampler:
    """With a bank of detections that are off by two pixels."""
    body, people = load_body("anny"), body_sampler()
    assert isinstance(body, AnnyBody)
    sample = people.sample(40, torch.Generator().manual_seed(1))
    camera = Camera(sample.camera.focal * 0.4, torch.tensor([96.0, 128.0]).expand(40, 2))
    pixels = camera.project(sample.mesh.vertices)
    depth = sample.mesh.joints[:, body.skeleton.root_index, 2]
    vertices = torch.cat([pixels, sample.mesh.vertices[..., 2:] - depth[:, None, None]], 2)
    generator = torch.Generator().manual_seed(2)
    found = rendered_keypoints() @ pixels + 2 * torch.randn(40, 26, 2, generator=generator)
    keypoints = torch.cat([found, 0.2 + 0.7 * torch.rand(40, 26, 1, generator=generator)], 2)
    bank = DetectionBank(keypoints, vertices, depth, camera, sample.params)
    return LiftingSampler(body, KEYPOINT_GRID, people, bank, seed=3)


@functools.cache
def hand_sampler() -> HandLiftingSampler:
    """With a bank of landmarks that are off by two pixels, with half the depth."""
    body = load_body("anny-hand")
    assert isinstance(body, AnnyBody)
    hands = HandSampler(body, shapes=16)
    drawn = hands.sample(120, torch.Generator().manual_seed(0))
    crop = crop_around(drawn.camera.project(drawn.mesh.joints))
    zoom = crop.affine[..., :2].det().sqrt()[:, None]
    camera = Camera(drawn.camera.focal * zoom, transform_points(crop.affine, drawn.camera.center[:, None])[:, 0])
    joints = drawn.mesh.joints
    flat = camera.project(joints) + torch.tensor([2.0, 0.0])
    depth = (joints[..., 2:] - joints[:, :1, 2:]) * camera.focal[:, :1, None] / joints[:, :1, 2:] / 2
    presence = torch.linspace(0.3, 1, 120)
    found = Landmarks(torch.cat([flat, depth], -1), presence, presence, joints - joints.mean(1, keepdim=True))
    return HandLiftingSampler(body, HAND_GRID, hands, HandBank(found, drawn.params, camera), seed=4)


@functools.cache
def _lifting_trainer(hands: bool) -> LiftingTrainer:
    """A trainer before its first step. It is copied, as computing the basis of its mesh takes seconds."""
    sampler = hand_sampler() if hands else lifting_sampler()
    body = sampler.body
    width, config = (48, hand_config) if hands else (32, keypoint_config)
    torch.manual_seed(0)
    sizes = LiftingSizes(width, 1, 8, 2, 16, 8, 2, fit=not hands)
    network = build(config(body, sizes), body)
    start_heads(network, sampler)
    settings = dataclasses.replace(SETTINGS, detected=0.5 if hands else 0.25)
    return LiftingTrainer(network, body, sampler, settings)


def lifting_trainer(hands: bool) -> LiftingTrainer:
    """A new trainer of the default network or the hand network, with small parts."""
    return copy.deepcopy(_lifting_trainer(hands))


def published_mixture(root: Path, epoch: int) -> Sample:
    """The first eight samples of an epoch of Human3.6M and MuCo beside MS-COCO, augmented."""
    sources = [open_source(name, root, "train") for name in ("Human36M", "MuCo", "MSCOCO")]
    union = union_skeleton([source.table.skeleton for source in sources])
    sets = [
        PersonDataset(source, union, draw=RandomAugmentation(2, number), number=number)
        for number, source in enumerate(sources)
    ]
    mixture = Mixture([sets[:2], sets[2:]], seed=2)
    return mixture.__getitems__(list(EpochSampler(len(mixture), epoch, seed=2))[:8])


def stand_in_pictures(monkeypatch: pytest.MonkeyPatch, seed: int, count: int) -> list[dict[str, Any]]:
    """Synthetic images with the stand-ins for clothes and backgrounds of the lab's tests."""
    body = load_body("anny")
    maker = make_maker(body, body_sampler(), PictureMix(), monkeypatch)
    found = []
    for index in range(count):
        picture = maker.make(seed, index)
        pixels = cv2.imdecode(picture.jpeg, cv2.IMREAD_COLOR)
        truth = {name: getattr(picture, name) for name in ("joints", "box", "focal", "center")}
        found.append({"pixels": pixels, **truth, "translation": picture.params.translation})
    return found
