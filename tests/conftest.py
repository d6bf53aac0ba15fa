"""Fixtures for all tests."""

from pathlib import Path

import body_files
import pytest
import torch


def pytest_configure() -> None:
    # Small tensors: more threads only wait for each other, and results do not depend on the machine's cores.
    torch.set_num_threads(1)


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
