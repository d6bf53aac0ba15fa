"""The cache of compiled functions: used if it is safe; functions are compiled without it otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import i2l_meshnet
from i2l_meshnet.folders import only_ours

MODULE = """
from i2l_meshnet.compiling import compiled

@compiled
def double(x):
    return 2 * x

print(double(21), double.stats.cache_path)
"""


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Import a module with a compiled function in a new process."""
    folder.mkdir(exist_ok=True)
    (folder / "module.py").write_text(MODULE)
    sources = os.pathsep.join([str(Path(i2l_meshnet.__file__).parents[1]), str(folder)])
    environment = {**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", "import module"], env=environment, capture_output=True, text=True, check=True
    )


def test_our_own_cache_is_used(tmp_path: Path) -> None:
    done = run(tmp_path / "source", NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stdout.startswith(f"42 {tmp_path / 'cache'}")
    assert done.stderr == ""
    assert list((tmp_path / "cache").rglob("*.nbc"))


def test_a_cache_that_other_users_can_write_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    done = run(tmp_path / "source", NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stdout == "42 None\n"
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "cache").rglob("*.nb?"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root can write")
def test_functions_are_compiled_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "__pycache__").touch()
    done = run(tmp_path / "source", HOME="/proc/none", XDG_CACHE_HOME="/proc/none")
    assert done.stdout == "42 None\n"
    assert len(done.stderr.splitlines()) == 1


def test_only_ours_checks_the_permissions_of_all_parent_folders(tmp_path: Path) -> None:
    inner = tmp_path / "above" / "inner"
    inner.mkdir(parents=True)
    assert only_ours(inner)
    (tmp_path / "above").chmod(0o777)
    assert not only_ours(inner)
    (tmp_path / "above").chmod(0o1777)
    assert only_ours(inner)
    assert not only_ours(tmp_path / "above")
    if os.geteuid() == 0:
        os.chown(inner, 65534, -1)
        assert not only_ours(inner)
