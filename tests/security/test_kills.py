"""One kill of each quick job; `python tests/security/kills.py` kills every job a hundred times."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = ("cache", "conversion", "synthesis", "pictures", "table", "video", "rig")
KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--kills", "1", "--jobs", *QUICK], id="quick"),
        pytest.param(["--kills", "100"], id="long", marks=pytest.mark.slow),
    ],
)
def test_killed_and_started_again_every_job_ends_the_same(options: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, KILLS, *options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
