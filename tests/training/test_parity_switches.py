"""Each parity switch reaches what it changes, and nothing changes without it.

The published behaviour itself is held to the goldens; docs/parity.md names the test for each switch and direction.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.loading import load_network
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.training import train as training
from i2l_meshnet.training.data import TrainingData, network_config
from i2l_meshnet.training.recipe import Parity, Recipe, RunOptions

COCO = dataclasses.replace(
    RECIPES["body-lixel"][1], train_3d=(), train_2d=("MSCOCO",), crop=64, augment=False, imagenet="none"
)


def data(recipe: Recipe, root: Path, body: Body) -> TrainingData:
    return TrainingData(recipe, RunOptions(data=root, workers=0, device="cpu"), body)


def with_switch(recipe: Recipe, switch: Parity) -> Recipe:
    return dataclasses.replace(recipe, parity=(switch,))


@pytest.fixture(scope="module")
def smpl(body_directory: Path) -> Body:
    return load_body("smpl", body_directory)


def test_middle_fingertip(body_directory: Path, tmp_path: Path) -> None:
    """`load_network(published_regressor=True)`, which `evaluate --published` uses: vertex 445 instead of 444."""
    body, path = load_body("mano", body_directory), tmp_path / "hand.safetensors"
    checkpoint.save(assembly.build(assembly.published_config(body, "resnet18"), body), path)
    ours, published = (load_network(path, body_directory, published_regressor=flag)[0] for flag in (False, True))
    differing = (ours.joint_regressor != published.joint_regressor).nonzero().tolist()
    tip = body.skeleton.index("Middle_4")
    assert differing == [[tip, 444], [tip, 445]]


@pytest.mark.parametrize("drifts", [False, True])
def test_batchnorm_drift(drifts: bool) -> None:
    recipe = dataclasses.replace(RECIPES["tiny"][1], stage="param", crop=32)
    body = load_body("toy")
    stage = training.make_stage(with_switch(recipe, "batchnorm-drift") if drifts else recipe, body)
    network = assembly.build(network_config(recipe, body), body)
    stage.prepare(network)
    stage.train_mode(network)
    norms = [part for part in network.pose_net.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    assert all(norm.training == drifts for norm in norms)


@pytest.mark.parametrize("published", [False, True])
def test_coco_fit_check(published: bool, dataset_root: Path, smpl: Body) -> None:
    """The published pelvis has the product of the hips' depths, ours their mean."""
    recipe = with_switch(COCO, "coco-fit-check") if published else COCO
    check = data(recipe, dataset_root, smpl).targets(own_joints=True).image_check
    assert check is not None
    vertices = smpl.template[None] + torch.tensor([0.0, 0.0, 4.0])
    *_, pelvis = check.read_joints(vertices)[0]
    assert float(pelvis[2]) == pytest.approx(16 if published else 4, abs=1)


def test_full_decode(dataset_root: Path, smpl: Body) -> None:
    """Pictures are decoded at the resolution that the crop needs; with the switch, whole."""

    def images(recipe: Recipe) -> list[torch.Tensor]:
        samples = data(recipe, dataset_root, smpl).dataset()
        return [samples[index].image for index in range(len(samples))]

    plain, again, whole = images(COCO), images(COCO), images(with_switch(COCO, "full-decode"))
    assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(plain, whole, strict=True))
