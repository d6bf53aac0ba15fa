"""Rows of what is missing, and tables that write themselves."""

import time
from pathlib import Path

import pytest
import torch

import measures
import peers
from measures import Bench
from rows import missing_row
from run import main
from scoring import make_predictions, published_evaluate, scored

BENCH = Bench(torch.device("cpu"), 1, 0.0, time.perf_counter, (1,))


def test_what_cannot_be_measured_says_why() -> None:
    rows = [*measures.gpu(BENCH)]
    # Two batches; the published formulation, and every precision as it is and compiled.
    assert len(rows) == 2 * (1 + 2 * len(measures.DTYPES))
    assert all(row.note == "not measured: no CUDA device here" and row.value is None for row in rows)
    assert missing_row("a", "b", "not installed").cells() == ("a", "b", "not installed", "-", "-", "-", "-")


def test_a_package_that_is_not_there_or_does_not_run_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(peers.Missing, match=r"^not installed$"):
        peers._package("no_such_package_at_all")
    (tmp_path / "broken_package_of_the_test.py").write_text("import numpy\nnumpy.no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(peers.Missing, match="does not run: AttributeError"):
        peers._package("broken_package_of_the_test")
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(peers.Missing, match="no display"):
        peers.pyrender_picture(torch.zeros(3, 3).double().numpy(), torch.zeros(1, 3).long().numpy(), 1.0, 8)


def test_a_table_replaces_what_is_between_its_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- bench -->\nold\n<!-- /bench -->\nbelow\n")
    assert main(["--quick", "--only", "gpu", "--update", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("above\n<!-- bench -->\n")
    assert text.endswith("<!-- /bench -->\nbelow\n")
    assert "old" not in text
    assert "| published network on a GPU, batch 64 | fp32 | not measured" in text or torch.cuda.is_available()
    page.write_text("no marks")
    assert main(["--quick", "--only", "gpu", "--update", str(page)]) == 1
    assert "has no part between" in capsys.readouterr().err


def test_scores_are_the_published_ones() -> None:
    predictions = make_predictions(6, 32)
    wanted, found = published_evaluate(predictions)(), scored(predictions, 4, "cpu", False)()
    assert wanted.shape == (6, 4)
    assert abs(wanted - found).max() < 0.01
