"""Datasets with a protocol: ground truth, scored joints, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from known_network import KnownNetwork
from toy_benchmark import GRID, PROTOCOL, make_toy_benchmark, scored, with_depths

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.data.sources import ADAPTERS, Source, open_source
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation.protocols import HUMAN36M_SCORED, PROTOCOLS
from i2l_meshnet.evaluation.published_sets import PublishedSet
from i2l_meshnet.evaluation.scoring import Meshes
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.training.data import dataset_splits


def test_another_body_is_scored_on_joints_of_the_same_names(dataset_root: Path, body_directory: Path) -> None:
    """The default network's Anny on 3DPW, whose truth is SMPL."""
    anny = load_body("anny")
    source = open_source("PW3D", dataset_root, "test")
    ready = PublishedSet(source, PROTOCOLS["PW3D"], anny, dataset_root, body_directory).scored(GRID)
    assert ready.scorer is not None
    assert {metric.points for metric in ready.scorer.metrics} == {"joints"}
    assert "'anny'" in ready.notes[0]
    found = scored(KnownNetwork(torch.rand(5, 1229, 3) * 64, GRID, False), anny, ready).evaluation()
    assert found.joints == HUMAN36M_SCORED
    known = [number for number, metric in enumerate(found.metrics) if metric.key != "acceleration"]
    assert np.isfinite(found.errors["lixel"].metrics[:, known]).all()


def test_freihand_is_scored_where_its_truth_is(dataset_root: Path, body_directory: Path) -> None:
    """On the training split: all of the hand's metrics, F-scores included; the truth scores perfectly."""
    mano, grid = load_body("mano", body_directory), LixelGrid(depth_extent=0.3)
    source = open_source("FreiHAND", dataset_root, "train")
    ready = PublishedSet(source, PROTOCOLS["FreiHAND"], mano, dataset_root, body_directory).scored(grid)
    assert ready.scorer is not None
    dataset = PersonDataset(ready.source)
    samples = dataset.batch(range(len(dataset)))
    truth = ready.scorer.truth(samples, torch.arange(len(dataset)))
    vertices = truth.points.vertices + truth.points.root[:, None]
    lixels = grid.from_camera(vertices, samples.crop, samples.annotation.camera, truth.points.root[:, 2])
    done = scored(KnownNetwork(lixels, grid), mano, ready, stage="lixel")
    assert done.submission() is None
    found = done.evaluation()
    # The set's joints are the hand's bones, the scored ones are read off the mesh: the stand-in's differ by some mm.
    joints = mano.joint_regressor @ vertices
    expected = (joints - joints[:, :1] - truth.points.joints).norm(dim=-1).mean() * 1000
    assert found.mean("lixel", "mpjpe") == pytest.approx(float(expected), abs=5e-3)
    assert found.mean("lixel", "pa_mpvpe") < 0.01
    assert found.mean("lixel", "pa_f_5") == found.mean("lixel", "pa_f_15") == 100


def test_released_truth_is_found_beside_the_data(dataset_root: Path, body_directory: Path, tmp_path: Path) -> None:
    mano, grid = load_body("mano", body_directory), LixelGrid(depth_extent=0.3)
    source = open_source("FreiHAND", dataset_root, "eval")
    moved = Source(source.name, source.split, tmp_path, source.table, True)
    vertices = torch.randn(3, 778, 3, generator=torch.Generator().manual_seed(1)) * 0.05 + torch.tensor([0, 0, 0.6])
    joints = mano.joint_regressor @ vertices
    (tmp_path / "data").mkdir()
    for name, values in (("xyz", joints), ("verts", vertices)):
        (tmp_path / "data" / f"evaluation_{name}.json").write_text(json.dumps(values.tolist()))
    ready = PublishedSet(moved, PROTOCOLS["FreiHAND"], mano, tmp_path, body_directory).scored(grid, true_depth=True)
    assert ready.scorer is not None
    scores = ready.scorer(
        Meshes(torch.zeros(3, 778, 3), vertices + 1),
        PersonDataset(source).batch(range(3)),
        torch.arange(3),
        True,
    )["param"]
    assert scores.metrics[:, :4].abs().max() < 1e-5
    (tmp_path / "data" / "evaluation_xyz.json").write_text(json.dumps(joints[:2].tolist()))
    with pytest.raises(FileError):
        PublishedSet(moved, PROTOCOLS["FreiHAND"], mano, tmp_path, body_directory).scored(grid)


def test_depths_that_are_not_known_are_refused(
    tmp_path: Path, dataset_root: Path, body_directory: Path, smpl: Body
) -> None:
    coco = open_source("MSCOCO", dataset_root, "val", True)
    with pytest.raises(InputError) as caught:
        PublishedSet(coco, PROTOCOLS["MSCOCO"], smpl, dataset_root).scored(GRID, true_depth=True)
    assert caught.value.argument == "gt_root"
    toys = make_toy_benchmark(tmp_path)
    with pytest.raises(InputError) as caught:
        PublishedSet(with_depths(toys.source, np.full(5, np.nan)), PROTOCOL, toys.body, tmp_path).scored(GRID)
    assert caught.value.argument == "gt_root"


def test_a_body_without_the_joints_is_refused(dataset_root: Path) -> None:
    source = open_source("Human36M", dataset_root, "test")
    with pytest.raises(InputError):
        PublishedSet(source, PROTOCOLS["Human36M"], load_body("toy"), dataset_root).scored(GRID)


def test_a_regressor_for_another_mesh_is_refused(dataset_root: Path, tmp_path: Path, smpl: Body) -> None:
    source = open_source("Human36M", dataset_root, "test")
    (tmp_path / "Human36M").mkdir()
    np.save(tmp_path / "Human36M" / "J_regressor_h36m_correct.npy", np.ones((17, 10)))
    with pytest.raises(FileError):
        PublishedSet(source, PROTOCOLS["Human36M"], smpl, tmp_path).scored(GRID)


def test_every_protocol_fits_its_data_set() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.split in dataset_splits()[name]
        assert protocol.metrics[0].key == "mpjpe"
        assert protocol.metrics[1].key == "pa_mpjpe"
        if protocol.joints is not None:
            assert ADAPTERS[name].joint_regressor is not None
            assert {protocol.root, *(protocol.scored or ())} <= set(protocol.joints)


def test_consecutive_frames_of_one_person_are_found(dataset_root: Path) -> None:
    """Person 0 of the tiny 3DPW sequence is in images 0 to 3, person 1 in image 1 only."""
    table = open_source("PW3D", dataset_root, "test").table
    assert table.arrays["person"].tolist() == [0, 0, 1, 0, 0]
    assert table.consecutive(5) == [(0, 1, 3), (1, 3, 4)]
    assert table.consecutive(4) == [(0, 1, 3)]
    assert not open_source("Human36M", dataset_root, "test").table.consecutive(3)


def test_a_custom_set_is_scored_on_the_joints_that_both_name(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path)
    ready = PublishedSet(toys.source, PROTOCOLS["Custom"], toys.body, toys.source.folder).scored(GRID)
    assert ready.scorer is not None
    assert ready.joints == tuple(joint for joint in toys.body.skeleton.joints if joint != "Pelvis")
    found = scored(KnownNetwork(toys.lixels, GRID), toys.body, ready, stage="lixel").evaluation()
    assert {metric.points for metric in found.metrics} == {"joints"}
    assert found.mean("lixel", "mpjpe") < 5e-3
