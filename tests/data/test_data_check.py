"""`data check` finds what is missing, says where to get it and draws samples."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tyro

from i2l_meshnet.data import command
from i2l_meshnet.data.check import CheckOptions, run
from i2l_meshnet.data.command import DataOptions
from i2l_meshnet.errors import FileError, InputError

Check = Callable[[CheckOptions], tuple[int, str]]


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs a check; gives its exit code and what it prints."""
    monkeypatch.setenv("COLUMNS", "250")
    return lambda options: (run(options), capsys.readouterr().out)


def test_a_whole_data_set_passes_and_is_drawn(
    checked: Check, dataset_root: Path, body_directory: Path, tmp_path: Path
) -> None:
    status, text = checked(CheckOptions("MSCOCO", dataset_root, out=tmp_path, body_dir=body_directory))
    assert status == 0
    assert "missing" not in text
    assert "5 people, 4 with a fitted body, 18 joints each" in text
    assert "left out: 1 crowd, 1 no keypoints, 1 box of no area inside the picture" in text
    sheet = cv2.imread(str(tmp_path / "check-MSCOCO-train.jpg"))
    assert sheet is not None
    assert sheet.shape == (2 * 256, 4 * 512, 3)
    joints, mesh = sheet[:256, :256].astype(int), sheet[:256, 256:512].astype(int)
    assert (np.abs(joints - mesh) > 40).any(-1).mean() > 0.05  # the mesh covers what the joints' picture shows
    assert (tmp_path / "check-MSCOCO-val.jpg").is_file()


def test_without_body_files_joints_are_drawn(
    checked: Check,
    dataset_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("I2L_MESHNET_BODIES", raising=False)
    status, text = checked(CheckOptions("PW3D", dataset_root, split="train", out=tmp_path))
    assert status == 0
    assert "the fitted bodies are not drawn" in text
    assert (tmp_path / "check-PW3D-train.jpg").is_file()


def test_what_is_missing_is_named_with_its_origin(checked: Check, dataset_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(dataset_root, root)
    (root / "MuCo" / "data" / "smpl_param.json").unlink()
    status, text = checked(CheckOptions("MuCo", root, out=tmp_path))
    assert status == 1
    assert "MuCo/data/smpl_param.json" in text
    assert "the MuCo download of the published I2L-MeshNet" in text
    shutil.rmtree(root / "FreiHAND" / "data" / "training")
    status, text = checked(CheckOptions("FreiHAND", root, out=tmp_path))
    assert status == 1
    assert "4 of 4 pictures are missing" in text
    assert "no sample can be drawn" in text
    assert (tmp_path / "check-FreiHAND-eval.jpg").is_file()


def test_some_pictures_gone(checked: Check, dataset_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(dataset_root, root)
    (root / "MuCo" / "data" / "augmented_set" / "000002.jpg").unlink()
    status, text = checked(CheckOptions("MuCo", root, out=tmp_path, samples=2))
    assert status == 1
    assert "1 of 5 pictures are missing" in text
    assert (tmp_path / "check-MuCo-train.jpg").is_file()


def data(*arguments: str) -> int:
    return command.run(tyro.cli(DataOptions, args=arguments))


def test_the_command_line(dataset_root: Path, tmp_path: Path) -> None:
    flags = ("--split", "val", "--out", str(tmp_path), "--samples", "1")
    assert data("check", "MSCOCO", "--root", str(dataset_root), *flags) == 0
    assert (tmp_path / "check-MSCOCO-val.jpg").is_file()
    for release in ("3dpw", "surreal"):
        with pytest.raises(FileError, match="name the unpacked release"):
            data("convert", release, "--release", str(tmp_path), "--root", str(tmp_path))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "H36M"}, "Human36M"),
        ({"name": "MuCo", "split": "val"}, "train"),
        ({"name": "MuCo", "samples": 0}, "1"),
    ],
)
def test_what_there_is_not_is_refused(dataset_root: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        run(CheckOptions(root=dataset_root, **options))
    assert named in str(caught.value)
