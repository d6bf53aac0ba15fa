"""Accelerations of a person's frames on end, wherever a data set numbers them."""

import csv
from pathlib import Path

import numpy as np
import torch
from known_network import KnownNetwork
from toy_benchmark import GRID, PROTOCOL, make_toy_benchmark

from i2l_meshnet.data.sources import open_source
from i2l_meshnet.evaluation.evaluate import build_benchmark, evaluate, mesh_errors
from i2l_meshnet.evaluation.protocols import MPJPE
from i2l_meshnet.evaluation.scoring import Scores


def test_frames_on_end_of_one_person_are_found(dataset_root: Path) -> None:
    """Person 0 of 3DPW's tiny sequence is in pictures 0 to 3, person 1 in picture 1 only."""
    table = open_source("PW3D", dataset_root, "test").table
    assert table.arrays["person"].tolist() == [0, 0, 1, 0, 0]
    assert table.consecutive(5) == [(0, 1, 3), (1, 3, 4)]
    assert table.consecutive(4) == [(0, 1, 3)]
    assert not open_source("Human36M", dataset_root, "test").table.consecutive(3)


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


def test_it_is_told_for_each_sequence(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path, people=5)
    arrays = toys.source.table.arrays
    arrays["group"][:], arrays["person"][:], arrays["frame"][:] = 0, 3, range(5)
    benchmark = build_benchmark(toys.source, PROTOCOL, toys.body, GRID, tmp_path)
    lixels = toys.lixels.clone()
    lixels[2, :, 2] *= 1.05
    found, _ = evaluate(KnownNetwork(lixels, GRID, with_params=False), toys.body, benchmark, ("lixel",))
    assert np.isfinite(found.errors["lixel"].metrics[:, -1]).tolist() == [False, True, True, True, False]
    assert any(line.startswith("acceleration error from lixel mesh: ") for line in found.lines())
    table = found.group_table()
    assert table is not None
    assert [str(column.header) for column in table.columns][-1] == "acceleration error, mm/frame²\nlixel"
    found.save(tmp_path)
    (row,) = csv.DictReader((tmp_path / "groups.csv").read_text().splitlines())
    assert float(row["lixel_acceleration_mm_per_squared_frame"]) > 1
