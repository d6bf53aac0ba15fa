"""Fixtures for all tests."""

import shutil
from pathlib import Path

import body_files
import cv2
import numpy as np
import pytest
import torch


def pytest_configure() -> None:
    # Small tensors: more threads only wait for each other, and results do not depend on the machine's cores.
    torch.set_num_threads(1)
    # Some tests fork, and a fork that inherits OpenCV's threads waits for them for ever.
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Folder of the numbers that the published code gave."""
    return Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def body_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for SMPL's and MANO's files, in the published layout (see body_files.py)."""
    root = tmp_path_factory.mktemp("bodies")
    body_files.write_body_files(root)
    return root


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory, goldens: Path) -> Path:
    """A data root with tiny copies of five data sets (see goldens/datasets/README.md); tests must not change it."""
    root = tmp_path_factory.mktemp("datasets") / "data"
    shutil.copytree(goldens / "datasets" / "tiny", root)
    with np.load(goldens / "datasets" / "regressors.npz") as parts:
        for name, file in (
            ("human36m", "Human36M/J_regressor_h36m_correct.npy"),
            ("coco", "MSCOCO/J_regressor_coco_hip_smpl.npy"),
        ):
            matrix = np.zeros((17, 6890))
            matrix[parts[f"{name}_row"], parts[f"{name}_column"]] = parts[f"{name}_value"]
            np.save(root / file, matrix)
    return root
