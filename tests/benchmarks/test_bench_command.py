"""The command, on its quickest group."""

import json
from pathlib import Path

import pytest

from run import main


def test_rows_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    assert main(["--quick", "--only", "render", "--markdown", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "matrix products reach fp32" in printed
    assert "| rasteriser, a body in 1024 x 1024 | ours |" in printed
    content = json.loads(path.read_text())
    ours, *_ = [row for row in content["rows"] if row["way"] == "ours"]
    assert ours["value"] > 0
    assert content["matmul_peak_gflops"]["fp32"] > 0


def test_bad_options_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--photo", str(tmp_path / "none.jpg")]) == 1
    assert "there is no photo" in capsys.readouterr().err
    assert main(["--photos", "0"]) == 1
    assert "at least 1" in capsys.readouterr().err
