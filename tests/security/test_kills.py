"""One kill of each fast job. `python tests/security/kills.py` kills every job a hundred times."""

import os
import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).with_name("kills.py")
FAST = ("cache", "conversion", "synthesis", "pictures", "table", "video", "rig")


def test_killed_jobs_end_with_the_same_files() -> None:
    command = [sys.executable, KILLS, "--kills", "1", "--jobs", *FAST]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
