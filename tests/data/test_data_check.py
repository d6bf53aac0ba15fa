"""`data check` lists missing files with their sources and draws samples."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tyro

from i2l_meshnet.data import command
from i2l_meshnet.data.cache import FOLDER
from i2l_meshnet.data.check import CheckOptions, run
from i2l_meshnet.data.command import DataOptions
from i2l_meshnet.errors import FileError, InputError

Check = Callable[[CheckOptions], tuple[int, str]]


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs a check. Returns its exit code and output."""
    monkeypatch.setenv("COLUMNS", "250")
    return lambda options: (run(options), capsys.readouterr().out)


def test_a_whole_data_set_passes_and_is_drawn(
    checked: Check, dataset_root: Path, body_directory: Path, tmp_path: Path
) -> None:
    status, text = checked(CheckOptions("MSCOCO", dataset_root, out=tmp_path, body_dir=body_directory))
    assert status == 0
    assert "missing" not in text
    assert "5 people, 4 with a fitted body, 18 joints each" in text
    assert "left out: 1 crowd, 1 no keypoints, 1 box without area inside the image" in text
    sheet = cv2.imread(str(tmp_path / "check-MSCOCO-train.jpg"))
    assert sheet is not None
    assert sheet.shape == (2 * 256, 4 * 512, 3)
    joints, mesh = sheet[:256, :256].astype(int), sheet[:256, 256:512].astype(int)
    assert (np.abs(joints - mesh) > 40).any(-1).mean() > 0.05  # the mesh covers what the joints' picture shows
    assert (tmp_path / "check-MSCOCO-val.jpg").is_file()


def test_without_body_files_only_joints_are_drawn(
    checked: Check, dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("I2L_MESHNET_BODIES", raising=False)
    status, _ = checked(CheckOptions("PW3D", dataset_root, split="train", out=tmp_path))
    assert status == 0
    sheet = cv2.imread(str(tmp_path / "check-PW3D-train.jpg"))
    assert sheet is not None
    assert sheet.shape[1] % 512 == 256 or sheet.shape[1] < 512 * 4


@pytest.mark.parametrize(
    ("name", "lost", "drawn"),
    [
        ("MuCo", "data/smpl_param.json", False),
        ("MuCo", "data/augmented_set/000002.jpg", True),
        ("FreiHAND", "data/training", False),
    ],
)
def test_missing_files_and_images_are_named(
    checked: Check, dataset_root: Path, tmp_path: Path, name: str, lost: str, drawn: bool
) -> None:
    shutil.copytree(dataset_root / name, tmp_path / name, ignore=shutil.ignore_patterns(".i2l-meshnet"))
    path = tmp_path / name / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    status, text = checked(CheckOptions(name, tmp_path, split="train", out=tmp_path))
    assert status == 1
    assert f"{name}/{lost}" in text
    assert (tmp_path / f"check-{name}-train.jpg").is_file() == drawn


def test_the_folder_of_3dpws_images_that_is_read_is_named(checked: Check, dataset_root: Path, tmp_path: Path) -> None:
    """The published code reads data/imageFiles, its README names imageFiles."""

    def check(folder: Path) -> tuple[int, str]:
        return checked(CheckOptions("PW3D", folder, split="train", out=tmp_path))

    shutil.copytree(dataset_root / "PW3D", tmp_path / "PW3D", ignore=shutil.ignore_patterns(".i2l-meshnet"))
    (tmp_path / "Human36M").mkdir()
    shutil.copy(dataset_root / "Human36M" / "J_regressor_h36m_correct.npy", tmp_path / "Human36M")
    status, text = check(tmp_path)
    assert (status, "PW3D/data/imageFiles " in text) == (0, True)
    (tmp_path / "PW3D" / "data" / "imageFiles").rename(tmp_path / "PW3D" / "imageFiles")
    shutil.rmtree(tmp_path / "PW3D" / FOLDER)
    status, text = check(tmp_path)
    assert (status, "PW3D/imageFiles " in text, "data/imageFiles" in text) == (0, True, False)
    shutil.rmtree(tmp_path / "PW3D" / "imageFiles")
    status, text = check(tmp_path)
    assert status == 1
    assert "PW3D/data/imageFiles (or imageFiles)" in text
    assert "https://virtualhumans.mpi-inf.mpg.de/3DPW/" in text


@pytest.mark.parametrize("factor", [1000, 0.001])
def test_another_unit_of_the_joints_is_noticed(
    checked: Check, dataset_root: Path, tmp_path: Path, factor: float
) -> None:
    shutil.copytree(dataset_root / "MuCo", tmp_path / "MuCo", ignore=shutil.ignore_patterns(".i2l-meshnet"))
    path = tmp_path / "MuCo" / "data" / "MuCo-3DHP.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["keypoints_cam"] = (np.array(annotation["keypoints_cam"]) * factor).tolist()
    path.write_text(json.dumps(content))
    status, text = checked(CheckOptions("MuCo", tmp_path, out=tmp_path))
    assert status == 1
    assert "metres" in text


def data(*arguments: str) -> int:
    return command.run(tyro.cli(DataOptions, args=arguments))


def test_the_command_line(dataset_root: Path, tmp_path: Path) -> None:
    flags = ("--split", "val", "--out", str(tmp_path), "--samples", "1")
    assert data("check", "MSCOCO", "--root", str(dataset_root), *flags) == 0
    assert (tmp_path / "check-MSCOCO-val.jpg").is_file()
    for release in ("3dpw", "surreal"):
        with pytest.raises(FileError):
            data("convert", release, "--release", str(tmp_path), "--root", str(tmp_path))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "H36M"}, "Human36M"),
        ({"name": "MuCo", "split": "val"}, "train"),
        ({"name": "MuCo", "samples": 0}, "1"),
    ],
)
def test_unknown_names_splits_and_counts_are_refused(dataset_root: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        run(CheckOptions(root=dataset_root, **options))
    assert named in str(caught.value)
