"""Means, tables and files of an evaluation."""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation import plots
from i2l_meshnet.evaluation.protocols import MPJPE, MPVPE, PA_MPJPE
from i2l_meshnet.evaluation.report import Evaluation, MeshErrors
from i2l_meshnet.evaluation.submission import write_submission

NAN = float("nan")


@pytest.fixture
def evaluation() -> Evaluation:
    lixel = MeshErrors(
        np.array([[10.0, 5, 12], [20, 6, 22], [NAN, NAN, NAN], [60, 7, 62]]),
        np.array([[8.0, 12], [18, 22], [NAN, NAN], [58, 62]]),
    )
    param = MeshErrors(lixel.metrics + np.array([[9.0], [0], [0], [0]]), lixel.distances + 1)
    return Evaluation(
        settings={"data": "Set", "split": "test"},
        metrics=(MPJPE, PA_MPJPE, MPVPE),
        joints=("Knee", "Wrist"),
        ids=(3, 1, 4, 2),
        pictures=("a.jpg", "b.jpg", "c.jpg", "d, e.jpg"),
        groups=("walk", "run", "run", "walk"),
        group_name="action",
        errors={"lixel": lixel, "param": param},
    )


def test_lines_are_the_published_ones_then_ours(evaluation: Evaluation) -> None:
    assert evaluation.lines() == [
        "MPJPE from lixel mesh: 30.00 mm",
        "PA MPJPE from lixel mesh: 6.00 mm",
        "MPJPE from param mesh: 33.00 mm",
        "PA MPJPE from param mesh: 9.00 mm",
        "MPVPE from lixel mesh: 32.00 mm",
        "MPVPE from param mesh: 35.00 mm",
    ]


def test_means_leave_unknown_samples_out(evaluation: Evaluation) -> None:
    assert evaluation.scored == 3
    assert evaluation.mean("lixel", "mpjpe", [1, 2]) == 20
    assert np.isnan(evaluation.mean("lixel", "mpjpe", [2]))
    assert evaluation.joint_means("lixel") == [28, 32]
    assert evaluation.worst(2) == [3, 1]
    assert evaluation.worst(9) == [3, 1, 0]


def test_files_hold_everything(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert found["metrics"]["param"] == {"mpjpe_mm": 33, "pa_mpjpe_mm": 9, "mpvpe_mm": 35}
    assert found["groups"]["run"]["lixel"]["mpjpe_mm"] == 20
    assert found["joints_mm"]["lixel"] == {"Knee": 28, "Wrist": 32}
    with (tmp_path / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["3", "1", "4", "2"]
    assert rows[3]["picture"] == "d, e.jpg"
    assert rows[2]["lixel_mpjpe_mm"] == ""
    assert float(rows[0]["param_mpjpe_mm"]) == 19
    with (tmp_path / "groups.csv").open(newline="") as file:
        groups = {row["action"]: row for row in csv.DictReader(file)}
    assert float(groups["walk"]["lixel_mpjpe_mm"]) == 35
    with (tmp_path / "joints.csv").open(newline="") as file:
        assert [row["joint"] for row in csv.DictReader(file)] == ["Knee", "Wrist"]


def test_plots_are_drawn(evaluation: Evaluation, tmp_path: Path) -> None:
    assert [path.name for path in plots.save_plots(evaluation, tmp_path)] == ["error_histogram.png", "joint_errors.png"]
    bars = plots.joint_bars(evaluation).axes[0]
    assert [bar.get_width() for bar in bars.patches] == [28, 32, 29, 33]
    counts = plots.error_histogram(evaluation).axes[0].patches
    assert sum(bar.get_height() for bar in counts) == 6


def test_submissions_hold_joints_then_vertices(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    joints, vertices = (generator.normal(size=(3, n, 3)).astype(np.float32) for n in (21, 778))
    path, archive = write_submission(joints, vertices, tmp_path)
    for text in (path.read_bytes(), zipfile.ZipFile(archive).read("pred.json")):
        found = json.loads(text)
        np.testing.assert_array_equal(np.float32(found[0]), joints)
        np.testing.assert_array_equal(np.float32(found[1]), vertices)
    joints[1, 2, 0] = np.nan
    with pytest.raises(InputError):
        write_submission(joints, vertices, tmp_path / "other")
    assert not (tmp_path / "other").exists()
