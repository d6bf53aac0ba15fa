"""From pictures to numbers: a network that knows the truth has no error, and damaged input is reported."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from known_network import KnownBody, KnownNetwork
from toy_benchmark import FITTED, GRID, PROTOCOL, ToyBenchmark, make_toy_benchmark, scored, with_depths

from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation.annotated import mesh_errors, mesh_kinds
from i2l_meshnet.evaluation.benchmark import System
from i2l_meshnet.evaluation.protocols import MPJPE, Protocol
from i2l_meshnet.evaluation.published_sets import fit_boxes, score_by_protocol
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
    ready = score_by_protocol(toys.source, protocol, toys.body, GRID, toys.source.folder)
    # Parametric meshes come without a place in space.
    body = KnownBody(toys.vertices - 7, toys.body)
    found = scored(KnownNetwork(toys.lixels if lixels is None else lixels, GRID), body, ready, **options)
    assert found.submission() is None
    return found.evaluation()


@pytest.mark.parametrize("protocol", [PROTOCOL, FITTED], ids=["joints", "fit"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_the_truth_has_no_error(toys: ToyBenchmark, protocol: Protocol, batch_size: int) -> None:
    found = evaluated(toys, protocol, batch_size=batch_size)
    assert len(found) == found.scored == 5
    for kind in ("lixel", "param"):
        for metric, value in PERFECT.items():
            # The first threshold of AUC is 0, which rounding fails.
            assert found.mean(kind, metric) == pytest.approx(value, abs=4 if metric == "auc_150" else MILLIMETRES)
        assert found.errors[kind].distances.shape == (5, len(toys.body.skeleton) - 1)


def test_a_shift_moves_only_the_unaligned_metrics(toys: ToyBenchmark) -> None:
    """One vertex moved by 0.25 m of depth: everything else about the sample stays."""
    lixels = toys.lixels.clone()
    row = int((toys.body.joint_regressor[toys.body.skeleton.index("L_Wrist")]).argmax())
    lixels[3, row, 2] += 8
    found, plain = evaluated(toys, lixels=lixels), evaluated(toys)
    changed = np.abs(found.errors["lixel"].metrics - plain.errors["lixel"].metrics) > MILLIMETRES
    assert changed[3, :4].all()
    assert not changed[[0, 1, 2, 4]].any()
    np.testing.assert_array_equal(found.errors["param"].metrics, plain.errors["param"].metrics)


def test_results_depend_neither_on_batches_nor_on_threads(toys: ToyBenchmark) -> None:
    lixels = toys.lixels + torch.randn(toys.lixels.shape, generator=torch.Generator().manual_seed(3))
    one, many = evaluated(toys, lixels=lixels, batch_size=1, workers=1), evaluated(toys, lixels=lixels, workers=4)
    for kind in ("lixel", "param"):
        np.testing.assert_allclose(one.errors[kind].metrics, many.errors[kind].metrics, rtol=0, atol=MILLIMETRES)


def test_true_depth_replaces_the_annotated_one(toys: ToyBenchmark) -> None:
    wrong = with_depths(toys.source, toys.source.table.arrays["root_depth"] * 1.2)
    ready = score_by_protocol(wrong, PROTOCOL, toys.body, GRID, wrong.folder, true_depth=True)
    network = KnownNetwork(toys.lixels, GRID)
    off = scored(network, toys.body, ready, stage="lixel").evaluation()
    on = scored(network, toys.body, ready, stage="lixel", gt_root=True).evaluation()
    assert off.mean("lixel", "mpjpe") > 20
    assert on.mean("lixel", "mpjpe") < MILLIMETRES


def test_samples_without_truth_are_left_out_of_the_means(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path, without_truth=(1, 4))
    found = evaluated(toys)
    assert (len(found), found.scored) == (5, 3)
    assert np.isnan(found.errors["lixel"].metrics[[1, 4]]).all()
    assert found.mean("lixel", "mpjpe") < MILLIMETRES
    assert set(found.worst(9)) == {0, 2, 3}


def test_only_the_first_samples_if_asked(toys: ToyBenchmark) -> None:
    assert evaluated(toys, samples=3).ids == (100, 101, 102)


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


def test_parametric_meshes_are_turned_to_the_camera(tmp_path: Path) -> None:
    """A network that sees crops alone gives bodies in the frame of its line of sight."""
    grid = LixelGrid(depth_axis="crop")
    toys = make_toy_benchmark(tmp_path, grid=grid)
    ready = score_by_protocol(toys.source, PROTOCOL, toys.body, grid, tmp_path)
    dataset = PersonDataset(toys.source, crop_size=grid.crop_size)
    samples = dataset.batch(range(len(dataset)))
    turn = grid.view_rotation(samples.crop, samples.annotation.camera)
    body = KnownBody(toys.vertices @ turn, toys.body)
    found = scored(KnownNetwork(toys.lixels, grid), body, ready).evaluation()
    assert found.mean("param", "mpvpe") < MILLIMETRES
    straight = scored(KnownNetwork(toys.lixels, grid), KnownBody(toys.vertices, toys.body), ready).evaluation()
    assert straight.mean("param", "mpvpe") > 5


def test_nan_predictions_name_the_annotation(toys: ToyBenchmark) -> None:
    lixels = toys.lixels.clone()
    lixels[3, 7, 1] = torch.nan
    with pytest.raises(InputError, match=r"annotation 103 \(3.png\)"):
        evaluated(toys, lixels=lixels, batch_size=2)


def test_a_missing_picture_is_told_in_one_line(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(FileError, match=r"2\.png") as caught:
        evaluated(toys)
    assert "\n" not in str(caught.value)


def test_stages_that_the_network_lacks_are_refused(toys: ToyBenchmark) -> None:
    whole, plain = (
        System(KnownNetwork(toys.lixels, GRID, has), toys.body, torch.device("cpu"), "mine") for has in (True, False)
    )
    assert mesh_kinds("auto", plain) == mesh_kinds("lixel", whole) == ("lixel",)
    assert mesh_kinds("auto", whole) == mesh_kinds("param", whole) == ("lixel", "param")
    with pytest.raises(InputError) as caught:
        mesh_kinds("param", plain)
    assert caught.value.argument == "stage"


def test_the_worst_samples_are_drawn_with_their_errors(toys: ToyBenchmark, tmp_path: Path) -> None:
    lixels = toys.lixels.clone()
    lixels[2] = lixels[2] * 0.8 + 6
    ready = score_by_protocol(toys.source, PROTOCOL, toys.body, GRID, toys.source.folder)
    # After the five samples the worst one comes again, to be drawn.
    network = KnownNetwork(torch.cat([lixels, toys.lixels[2:3]]), GRID)
    scored(network, toys.body, ready, stage="lixel").write(tmp_path)
    assert [path.name for path in tmp_path.glob("*.jpg")] == ["worst_1.jpg"]
    picture = cv2.imread(str(tmp_path / "worst_1.jpg"))
    photo, drawn = np.split(picture[:400], 2, 1)
    # The photograph is black; the toy covers the middle of the panel beside it.
    assert photo.max() < 30
    assert (drawn.max(-1) > 60).mean() > 0.03


def test_jitter_has_an_acceleration_and_a_constant_error_none() -> None:
    offsets = torch.zeros(4, 2, 3, dtype=torch.float64)
    offsets[:, :, 1] = 0.05
    offsets[1, :, 0] = 0.001
    scores = Scores(torch.full((4, 1), 0.05, dtype=torch.float64), offsets)
    errors = mesh_errors(scores, [MPJPE], [(0, 1, 2), (1, 2, 3)])
    np.testing.assert_allclose(errors.metrics[:, 0], 50)
    np.testing.assert_allclose(errors.metrics[:, 1], [np.nan, 2, 1, np.nan])  # mm a squared frame
    np.testing.assert_allclose(errors.distances[0], 50)
    assert mesh_errors(scores, [MPJPE], []).metrics.shape == (4, 1)


def test_accelerations_are_reported_for_each_sequence(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path, people=5)
    arrays = toys.source.table.arrays
    arrays["group"][:], arrays["person"][:], arrays["frame"][:] = 0, 3, range(5)
    ready = score_by_protocol(toys.source, PROTOCOL, toys.body, GRID, tmp_path)
    lixels = toys.lixels.clone()
    lixels[2, :, 2] *= 1.05
    found = scored(KnownNetwork(lixels, GRID, with_params=False), toys.body, ready).evaluation()
    assert np.isfinite(found.errors["lixel"].metrics[:, -1]).tolist() == [False, True, True, True, False]
    assert any(line.startswith("acceleration error from lixel mesh: ") for line in found.lines())
    found.save(tmp_path)
    (row,) = csv.DictReader((tmp_path / "groups.csv").read_text().splitlines())
    assert float(row["lixel_acceleration_mm_per_squared_frame"]) > 1
