"""Benchmarks of annotated images: a network that knows the ground truth has no error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from known_network import KnownBody, KnownNetwork
from toy_benchmark import FITTED, GRID, PROTOCOL, ToyBenchmark, make_toy_benchmark, scored, with_depths

from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation.annotated import mesh_errors, mesh_kinds
from i2l_meshnet.evaluation.benchmark import System
from i2l_meshnet.evaluation.protocols import MPJPE, Protocol
from i2l_meshnet.evaluation.published_sets import PublishedSet, fit_boxes
from i2l_meshnet.evaluation.report import Evaluation
from i2l_meshnet.evaluation.scoring import Scores
from i2l_meshnet.geometry.lixel import LixelGrid

MILLIMETRES = 5e-3
"""Lixels are float32 numbers up to 64, in steps of 4e-6: 1e-7 m of depth, and as much across."""
PERFECT = {"mpjpe": 0, "pa_mpjpe": 0, "mpvpe": 0, "pa_mpvpe": 0, "pck_150": 100, "auc_150": 100}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> ToyBenchmark:
    return make_toy_benchmark(tmp_path_factory.mktemp("toys"))


def evaluated(
    toys: ToyBenchmark, protocol: Protocol = PROTOCOL, lixels: torch.Tensor | None = None, **options: object
) -> Evaluation:
    ready = PublishedSet(toys.source, protocol, toys.body, toys.source.folder).scored(GRID)
    # Parametric meshes have no position in space.
    body = KnownBody(toys.vertices - 7, toys.body)
    found = scored(KnownNetwork(toys.lixels if lixels is None else lixels, GRID), body, ready, **options)
    assert found.submission() is None
    return found.evaluation()


@pytest.mark.parametrize("protocol", [PROTOCOL, FITTED], ids=["joints", "fit"])
def test_the_truth_has_no_error(toys: ToyBenchmark, protocol: Protocol) -> None:
    found = evaluated(toys, protocol, batch_size=2)
    assert len(found) == found.scored == 5
    for kind in ("lixel", "param"):
        for metric, value in PERFECT.items():
            # The first threshold of AUC is 0, which rounding fails.
            assert found.mean(kind, metric) == pytest.approx(value, abs=4 if metric == "auc_150" else MILLIMETRES)
        assert found.errors[kind].distances.shape == (5, len(toys.body.skeleton) - 1)


def test_results_depend_neither_on_batches_nor_on_threads(toys: ToyBenchmark) -> None:
    lixels = toys.lixels + torch.randn(toys.lixels.shape, generator=torch.Generator().manual_seed(3))
    one, many = evaluated(toys, lixels=lixels, batch_size=1, workers=1), evaluated(toys, lixels=lixels, workers=4)
    for kind in ("lixel", "param"):
        np.testing.assert_allclose(one.errors[kind].metrics, many.errors[kind].metrics, rtol=0, atol=MILLIMETRES)
    assert evaluated(toys, samples=3).ids == (100, 101, 102)


def test_true_depth_replaces_the_annotated_one(toys: ToyBenchmark) -> None:
    wrong = with_depths(toys.source, toys.source.table.arrays["root_depth"] * 1.2)
    ready = PublishedSet(wrong, PROTOCOL, toys.body, wrong.folder).scored(GRID, true_depth=True)
    network = KnownNetwork(toys.lixels, GRID)
    off = scored(network, toys.body, ready, stage="lixel").evaluation()
    on = scored(network, toys.body, ready, stage="lixel", gt_root=True).evaluation()
    assert off.mean("lixel", "mpjpe") > 20
    assert on.mean("lixel", "mpjpe") < MILLIMETRES


def test_means_leave_out_samples_without_truth(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path, without_truth=(1, 4))
    found = evaluated(toys)
    assert (len(found), found.scored) == (5, 3)
    assert np.isnan(found.errors["lixel"].metrics[[1, 4]]).all()
    assert found.mean("lixel", "mpjpe") < MILLIMETRES
    assert set(found.worst(9)) == {0, 2, 3}


def test_square_boxes_are_cut_to_the_aspect_of_the_crop(tmp_path: Path) -> None:
    grid = LixelGrid(crop_size=(256, 192), margin=0.25, depth_axis="crop")
    toys = make_toy_benchmark(tmp_path)
    before = toys.source.table.arrays["box"]
    narrow = fit_boxes(toys.source, grid.crop_size).table.arrays["box"]
    np.testing.assert_allclose(narrow[:, 3], before[:, 3])
    np.testing.assert_allclose(narrow[:, 2], before[:, 3] * 0.75)
    np.testing.assert_allclose(narrow[:, :2] + narrow[:, 2:] / 2, before[:, :2] + before[:, 2:] / 2)
    wide = fit_boxes(toys.source, (192, 256)).table.arrays["box"]
    np.testing.assert_allclose(wide[:, 3], before[:, 2] * 0.75)


def test_parametric_meshes_are_rotated_to_the_camera(tmp_path: Path) -> None:
    """A network that sees only crops predicts bodies in the frame of the crop's line of sight."""
    grid = LixelGrid(depth_axis="crop")
    toys = make_toy_benchmark(tmp_path, grid=grid)
    ready = PublishedSet(toys.source, PROTOCOL, toys.body, tmp_path).scored(grid)
    dataset = PersonDataset(toys.source, crop_size=grid.crop_size)
    samples = dataset.batch(range(len(dataset)))
    rotation = grid.view_rotation(samples.crop, samples.annotation.camera)
    body = KnownBody(toys.vertices @ rotation, toys.body)
    found = scored(KnownNetwork(toys.lixels, grid), body, ready).evaluation()
    assert found.mean("param", "mpvpe") < MILLIMETRES
    straight = scored(KnownNetwork(toys.lixels, grid), KnownBody(toys.vertices, toys.body), ready).evaluation()
    assert straight.mean("param", "mpvpe") > 5


def test_nan_predictions_name_the_annotation(toys: ToyBenchmark) -> None:
    lixels = toys.lixels.clone()
    lixels[3, 7, 1] = torch.nan
    with pytest.raises(InputError, match=r"\b103\b"):
        evaluated(toys, lixels=lixels, batch_size=2)


def test_stages_that_the_network_lacks_are_refused(toys: ToyBenchmark) -> None:
    whole, plain = (
        System(KnownNetwork(toys.lixels, GRID, has), toys.body, torch.device("cpu"), "mine") for has in (True, False)
    )
    assert mesh_kinds("auto", plain) == mesh_kinds("lixel", whole) == ("lixel",)
    assert mesh_kinds("auto", whole) == mesh_kinds("param", whole) == ("lixel", "param")
    with pytest.raises(InputError) as caught:
        mesh_kinds("param", plain)
    assert caught.value.argument == "stage"


def test_jitter_has_an_acceleration_error() -> None:
    offsets = torch.zeros(4, 2, 3, dtype=torch.float64)
    offsets[:, :, 1] = 0.05
    offsets[1, :, 0] = 0.001
    scores = Scores(torch.full((4, 1), 0.05, dtype=torch.float64), offsets)
    errors = mesh_errors(scores, [MPJPE], [(0, 1, 2), (1, 2, 3)])
    np.testing.assert_allclose(errors.metrics[:, 0], 50)
    np.testing.assert_allclose(errors.metrics[:, 1], [np.nan, 2, 1, np.nan])  # mm a squared frame
    np.testing.assert_allclose(errors.distances[0], 50)
    assert mesh_errors(scores, [MPJPE], []).metrics.shape == (4, 1)
