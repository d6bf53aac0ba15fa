"""Behaviour that must survive a rebuild, as numbers and structure. `pytest tests/characterisation --remake` keeps new
results.

Kept results are in `goldens/`, each with the commit, processor and versions that made it. The slowest tests are marked
`slow`: `-m "slow or not slow"` runs all, and so must `--remake`.
"""

import functools
from collections.abc import Callable

import golden
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--remake", action="store_true", help="keep the results instead of comparing them")


@pytest.fixture(scope="session")
def remake(pytestconfig: pytest.Config) -> bool:
    """Whether to replace the kept results. The option exists only if this folder is named on the command line."""
    return pytestconfig.getoption("--remake", default=False)


@pytest.fixture
def compare(remake: bool) -> Callable[..., None]:
    """`golden.compare`: (name, result, tolerances)."""
    return functools.partial(golden.compare, remake=remake)
