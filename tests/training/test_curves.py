"""`i2l-meshnet plot` draws the log of a training."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_training import tiny_options

from i2l_meshnet import cli
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation import plots
from i2l_meshnet.training import train as training
from i2l_meshnet.training.curves import plot_training, read_log

LOG = """step,epoch,learning_rate,images_per_second,loss,joint_fit,validation MPJPE of lixel mesh
1,0,0.001,,3.5,1.5,
2,0,0.001,9.5,2.5,1.25,
2,0,,,,,250.5
3,1,0.0001,9.5,1.5,1,
3,1,,,,,120
"""


def test_losses_and_validation_errors_are_separate_curves(tmp_path: Path) -> None:
    (tmp_path / "lixel.csv").write_text(LOG)
    log = read_log(tmp_path / "lixel.csv")
    assert log.stage == "lixel"
    assert log.losses == {"loss": [(1, 3.5), (2, 2.5), (3, 1.5)], "joint_fit": [(1, 1.5), (2, 1.25), (3, 1.0)]}
    assert log.errors == {"validation MPJPE of lixel mesh": [(2, 250.5), (3, 120.0)]}


def open_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file."""
    with Image.open(path) as image:
        return image.size


def test_both_stages_are_plotted_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "lixel.csv").write_text(LOG)
    assert cli.main(["plot", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lixel stage: loss 3.5 to 1.5, validation MPJPE of lixel mesh 250.5 to 120"
    one = open_size(tmp_path / "log" / "training.png")
    (tmp_path / "log" / "param.csv").write_text(LOG)
    assert cli.main(["plot", str(tmp_path), "--out", str(tmp_path / "both.png")]) == 0
    both = open_size(tmp_path / "both.png")
    assert both == (2 * one[0], one[1])


def test_the_log_of_a_training_without_validation_is_plotted(tmp_path: Path) -> None:
    options = tiny_options(tmp_path, {"pictures": 4, "end_epoch": 1})
    assert training.run(options) == 0
    (log,) = plot_training(options.run.out, tmp_path / "plot.png")
    assert list(log.losses)[:2] == ["loss", "joint_fit"]
    assert not log.errors


def test_errors_of_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError):
        plot_training(tmp_path, tmp_path / "plot.png")
    (tmp_path / "log").mkdir()
    for damaged in (b"\xff\xfe\x00", b"step,loss\nx,1\n", b"loss\n1\n"):
        (tmp_path / "log" / "lixel.csv").write_bytes(damaged)
        with pytest.raises(FileError):
            plot_training(tmp_path, tmp_path / "plot.png")
    (tmp_path / "log" / "lixel.csv").write_text(LOG)
    monkeypatch.setattr(plots, "available", lambda: False)
    with pytest.raises(InputError) as caught:
        plot_training(tmp_path, tmp_path / "plot.png")
    assert "i2l-meshnet[plots]" in str(caught.value)
