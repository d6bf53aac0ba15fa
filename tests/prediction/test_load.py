"""Predictors made from files, as users make them: real networks with random weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.keypoint import SIZES, keypoint_config
from i2l_meshnet.models.loading import load_network
from i2l_meshnet.models.snapshot import PREFIXES
from i2l_meshnet.prediction import predictor as module
from i2l_meshnet.prediction.predictor import MeshPredictor

PHOTO = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
BOXES = [[50.0, 20.0, 60.0, 150.0], [180.0, 10.0, 70.0, 180.0]]


@pytest.fixture(scope="module")
def weights(anny: Body, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = dataclasses.replace(
        SIZES, width=32, blocks=1, joint_hidden=16, joint_channels=4, mesh_hidden=16, mesh_channels=4
    )
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint.save(assembly.build(keypoint_config(anny, sizes), anny), path, licence="ours", source="a test")
    return path


def test_a_checkpoint_predicts(weights: Path) -> None:
    predictor = MeshPredictor.load(weights, device="cpu", detect=False)
    people = predictor(PHOTO, boxes=BOXES)
    assert [person.lixel_mesh.vertices.shape for person in people] == [(1229, 3)] * 2
    assert all(person.parametric_mesh is not None and person.keypoints is not None for person in people)
    assert people.network["weights"] == "small.safetensors"
    assert people.network["licence"] == "ours"
    alone = predictor(PHOTO, boxes=BOXES[1:])[0]
    torch.testing.assert_close(alone.lixels, people[1].lixels, rtol=0, atol=1e-3)
    again = MeshPredictor.load(str(weights), device="cpu", detect=False)(PHOTO, boxes=BOXES).arrays()
    for key, value in people.arrays().items():
        np.testing.assert_array_equal(value, again[key])


def test_a_missing_detector_is_a_warning(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.assets, "find", lambda name: None)
    with pytest.warns(UserWarning, match="i2l-meshnet assets detector"):
        predictor = MeshPredictor.load(weights, device="cpu")
    assert predictor(PHOTO).boxes_source == "whole picture"


def write_snapshot(path: Path, body: Body, batches: int) -> None:
    """A published snapshot of a hand network on ResNet-18 whose regressor has seen `batches` batches."""
    torch.manual_seed(0)
    state = assembly.build(assembly.published_config(body, "resnet18"), body).state_dict()
    published = {}
    for key, value in state.items():
        theirs, ours = next((theirs, ours) for theirs, ours in PREFIXES.items() if key.startswith(ours))
        counted = ours == "parameter_regressor." and key.endswith("num_batches_tracked")
        published[f"module.{theirs}{key.removeprefix(ours)}"] = torch.tensor(batches) if counted else value
    torch.save({"epoch": 3, "network": published, "optimizer": {}}, path)


@pytest.mark.parametrize(("stage", "batches"), [("lixel", 0), ("param", 7)])
def test_published_snapshots_of_both_stages(body_directory: Path, tmp_path: Path, stage: str, batches: int) -> None:
    path = tmp_path / f"{stage}_snapshot_3.pth.tar"
    write_snapshot(path, load_body("mano", body_directory), batches)
    network, body, metadata = load_network(path, body_directory)
    assert not network.training
    assert body.name == "mano"
    assert metadata.network.backbone == "resnet18"
    assert (network.parameter_regressor is None) == (stage == "lixel")
    predictor = MeshPredictor.load(path, "cpu", body_directory, detect=False)
    hand = predictor(PHOTO, boxes=BOXES[:1])[0]
    assert hand.lixel_mesh.vertices.shape == (778, 3)
    assert (hand.params is None) == (stage == "lixel")
    assert bool(hand.lixel_mesh.vertices.isfinite().all())
    assert predictor.network_facts["parameters"] == (stage == "param")


def test_a_parameter_stage_with_frozen_batchnorm_counts_as_trained(tmp_path: Path) -> None:
    toy = load_body("toy")
    network = assembly.build(assembly.published_config(toy, "resnet18"), toy)
    for stage in ("lixel", "param"):
        path = tmp_path / f"{stage}.safetensors"
        checkpoint.save(network, path, {"stage": stage})
        assert (load_network(path)[0].parameter_regressor is None) == (stage == "lixel")


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.pth.tar", "text.safetensors", "text.pth.tar"])
def test_weights_that_cannot_be_read_are_an_error_of_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("no weights")
    with pytest.raises(FileError) as caught:
        MeshPredictor.load(path, device="cpu", detect=False)
    assert str(path) in str(caught.value)


def test_a_missing_device_is_refused(weights: Path) -> None:
    for device in ("tpu", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(InputError):
            MeshPredictor.load(weights, device=device)
