"""Both stages overfit every tiny dataset.

Training uses the code of `train` without augmentation, a quarter of the published channels and crops of 64 pixels (16
lixels along a side). BatchNorm first uses batch statistics, then running statistics, which evaluation uses too.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tiny_training import slim_networks

from i2l_meshnet.data.sources import open_source
from i2l_meshnet.data.targets import SHAPE_LIMIT
from i2l_meshnet.evaluation.annotated import AnnotatedPictures, DrawingOptions, ScoringOptions
from i2l_meshnet.evaluation.benchmark import System, evaluate
from i2l_meshnet.evaluation.protocols import HUMAN36M_SCORED, PROTOCOLS, Protocol
from i2l_meshnet.evaluation.published_sets import PublishedSet
from i2l_meshnet.models.loading import load_network
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.skeletons import MUCO
from i2l_meshnet.training import train as training
from i2l_meshnet.training.data import TrainingData
from i2l_meshnet.training.recipe import Recipe, RunOptions, TrainOptions

LIXEL_LIMIT, PARAM_LIMIT = 20.0, 30.0
"""Largest MPJPE, mm."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a stage: epochs of `steps` steps; the learning rate is divided by 3 after each epoch.

    surface: factor of the normal and edge losses. All vertices start at one point; while the mesh unfolds, the edge
    loss would keep mirrored parts mirrored.
    """

    stage: Literal["lixel", "param"]
    batchnorm: Literal["local", "frozen"]
    epochs: int
    steps: int
    learning_rate: float
    surface: float = 1.0


HAND = (
    Phase("lixel", "local", 1, 120, 3e-3),
    Phase("lixel", "frozen", 3, 40, 1e-3),
    Phase("param", "local", 1, 60, 3e-3),
    Phase("param", "frozen", 3, 30, 1e-3),
)
BODY = (
    Phase("lixel", "local", 1, 300, 3e-3, surface=0.0),
    Phase("lixel", "frozen", 4, 100, 1e-3),
    Phase("param", "local", 1, 400, 3e-3),
    Phase("param", "frozen", 3, 100, 1e-3),
)


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    """Larger networks than in the other tests."""
    with slim_networks((16, 32, 64, 128), 64):
        yield


def learn(recipe: Recipe, run: RunOptions, samples: int, phases: tuple[Phase, ...]) -> Path:
    """Train phase by phase, each phase from the snapshot of the previous phase. Return the last snapshot.

    samples: number of samples in the datasets, which are repeated so that an epoch has the phase's steps.
    """
    start = None
    for number, phase in enumerate(phases):
        repeats = -(-phase.steps * recipe.batch // samples)
        changed = dataclasses.replace(
            recipe,
            stage=phase.stage,
            batchnorm=phase.batchnorm,
            train_3d=recipe.train_3d * repeats,
            train_2d=recipe.train_2d * repeats,
            end_epoch=phase.epochs,
            decay_epochs=tuple(range(1, phase.epochs)),
            decay_factor=3.0,
            learning_rate=phase.learning_rate,
            normal_weight=recipe.normal_weight * phase.surface,
            edge_weight=recipe.edge_weight * phase.surface,
        )
        out = run.out / str(number)
        assert training.run(TrainOptions(changed, dataclasses.replace(run, out=out, start=start))) == 0
        start = out / "model_dump" / f"snapshot_{phase.epochs - 1}.safetensors"
    assert start is not None
    return start


HUMAN36M = PROTOCOLS["Human36M"]
TINY: dict[str, Protocol] = {
    "Human36M": HUMAN36M,
    "MuCo": dataclasses.replace(
        HUMAN36M, source="MuCo", scored=tuple(joint for joint in HUMAN36M_SCORED if joint in MUCO.joints)
    ),
    # Without 3D joints, the ground truth is the body's own joints, regressed from the fits.
    "MSCOCO": dataclasses.replace(HUMAN36M, source="MSCOCO", joints=None, scored=None, truth="fit"),
    "PW3D": PROTOCOLS["PW3D"],
    "FreiHAND": PROTOCOLS["FreiHAND"],
}
"""Dataset → protocol. MuCo and MSCOCO have no benchmark: their protocols are like Human3.6M's."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_both_stages_overfit_a_tiny_dataset(
    name: str, tmp_path: Path, dataset_root: Path, body_directory: Path
) -> None:
    """Only images with consistent annotations are scored: some fits are wrong or missing on purpose."""
    hand = name == "FreiHAND"
    source = open_source(name, dataset_root, "train", true_boxes=True)
    sets = {"train_3d": (name,), "train_2d": ()} if source.three_d else {"train_3d": (), "train_2d": (name,)}
    recipe = dataclasses.replace(
        RECIPES["hand-lixel" if hand else "body-lixel"][1],
        **sets,
        backbone="resnet18",
        crop=64,
        imagenet="none",
        augment=False,
        batch=len(source),
        # The labels of the tiny MSCOCO are decimetres from its fits.
        own_joints=name != "MSCOCO",
        # The joints of the SMPL stand-in are up to 20 cm from the joints regressed from its posed mesh.
        mesh_joint_weight=1.0 if hand else 0.0,
    )
    run = RunOptions(dataset_root, tmp_path, body_directory, workers=0, tensorboard=False, device="cpu", log_every=20)
    phases = HAND if hand else BODY
    if len(source) == 1:
        # BatchNorm has no statistics for a batch of one image.
        phases = tuple(dataclasses.replace(phase, batchnorm="frozen") for phase in phases)
    network, body, _ = load_network(learn(recipe, run, len(source), phases), body_directory)
    data = PublishedSet(source, TINY[name], body, dataset_root, body_directory).scored(network.grid, True)
    system = System(network, body, torch.device("cpu"), "mine")
    benchmark = AnnotatedPictures(system, data, ScoringOptions(gt_root=True), DrawingOptions())
    evaluate(benchmark)
    evaluation = benchmark.evaluation()

    parts = TrainingData(recipe, run, body)
    dataset = parts.dataset()
    used = parts.targets(recipe.own_joints)(dataset.__getitems__(range(len(source)))).params_weight.bool().numpy()
    used &= (np.abs(source.table.arrays["shape"]) <= SHAPE_LIMIT).all(1)
    errors = {kind: found.metrics[used, 0] for kind, found in evaluation.errors.items()}
    print(name, {kind: values.round(1).tolist() for kind, values in errors.items()})  # for docs/notes/training.md
    assert len(errors["lixel"]) == {"Human36M": 3, "MuCo": 2, "MSCOCO": 3, "PW3D": 1, "FreiHAND": 4}[name]
    assert errors["lixel"].mean() < LIXEL_LIMIT
    assert errors["param"].mean() < PARAM_LIMIT
