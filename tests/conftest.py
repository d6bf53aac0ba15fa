"""Fixtures for all tests."""

import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import body_files
import cv2
import numpy as np
import pytest
import torch

from i2l_meshnet import assets

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--check-skips", action="store_true", help=f"fail if a skip's reason is not in {ALLOWED_SKIPS}")


def pytest_configure() -> None:
    # Tensors are small, and results must not depend on the number of cores.
    torch.set_num_threads(1)
    # Some tests fork, and a fork that inherits OpenCV's threads hangs.
    cv2.setNumThreads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --check-skips: fail for every reason that no pattern of allowed_skips.txt matches."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--check-skips"):
        return  # xdist's workers have no reporter; the controller has their skips.
    reasons = {report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ())}
    lines = ALLOWED_SKIPS.read_text(encoding="utf-8").splitlines()
    patterns = [line.partition(" # ")[0] for line in lines if line and not line.startswith("#")]
    allowed = [pattern.replace("[", "[[]") for pattern in patterns]  # `*` is the only special character
    refused = sorted(reason for reason in reasons if not any(fnmatchcase(reason, pattern) for pattern in allowed))
    for reason in refused:
        reporter.write_line(f"\nThis skip is not in {ALLOWED_SKIPS}: {reason}", red=True)
    if refused and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    """The file or folder of an asset that `make test` fetches. Skip the test if it has not been fetched."""

    def find(name: str) -> Path:
        path = assets.find(name)
        if path is None:
            pytest.skip(f"the asset {name} has not been fetched")
        return path

    return find


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Folder of the published code's numbers."""
    return Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def body_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for SMPL's and MANO's files, in the published layout (see body_files.py)."""
    root = tmp_path_factory.mktemp("bodies")
    body_files.write_body_files(root)
    return root


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory, goldens: Path) -> Path:
    """A data root with tiny copies of five datasets (see goldens/datasets/README.md); tests must not change it."""
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
