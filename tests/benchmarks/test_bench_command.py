"""The command, on its quickest groups."""

from pathlib import Path

import pytest

import peers
from run import main


def test_rows_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- bench -->\nold\n<!-- /bench -->\nbelow\n")
    assert main(["--quick", "--only", "render", "--markdown", "--update", str(page)]) == 0
    printed, text = capsys.readouterr().out, page.read_text()
    for shown in (printed, text):
        assert "matrix products reach fp32" in shown
        assert "| rasteriser, a body in 1024 x 1024 | ours |" in shown
    assert text.startswith("above\n<!-- bench -->\n")
    assert text.endswith("<!-- /bench -->\nbelow\n")
    assert "old" not in text


def test_errors_of_the_user_are_printed_as_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--photo", str(tmp_path / "none.jpg")]) == 1
    assert "none.jpg" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text("no marks")
    assert main(["--quick", "--only", "render", "--update", str(page)]) == 1
    assert "page.md" in capsys.readouterr().err.splitlines()[-1]


def test_a_package_that_is_missing_or_damaged_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(peers.Missing):
        peers._package("no_such_package_at_all")
    (tmp_path / "damaged_package_of_the_test.py").write_text("import numpy\nnumpy.no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(peers.Missing, match="AttributeError"):
        peers._package("damaged_package_of_the_test")
