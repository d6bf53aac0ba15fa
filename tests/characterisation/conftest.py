"""Behaviour that must survive a rebuild.

`pytest tests/characterisation -m "slow or not slow" --remake` writes the golden files in `goldens/`, each with the
commit, processor and versions that made it. The slowest tests are marked `slow`.
"""

import functools
from collections.abc import Callable

import golden
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--remake", action="store_true", help="write golden files instead of comparing")


@pytest.fixture(scope="session")
def remake(pytestconfig: pytest.Config) -> bool:
    """Whether to write golden files. The option exists only if this folder is named on the command line."""
    return pytestconfig.getoption("--remake", default=False)


@pytest.fixture
def compare(remake: bool) -> Callable[..., None]:
    """`golden.compare`: (name, result, tolerances)."""
    return functools.partial(golden.compare, remake=remake)
