"""Same input and seed, same bytes: predictions and checkpoints, whatever Python's hash seed and the loaders' number."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DIGESTS = Path(__file__).with_name("digests.py")


def digests(folder: Path, hash_seed: str, workers: int) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, DIGESTS, folder, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if len(line.split()[0]) == 64]


@pytest.mark.slow
def test_predictions_and_checkpoints_have_the_same_bytes(tmp_path: Path) -> None:
    expected = digests(tmp_path / "first", "0", 0)
    kinds = {line.rpartition(".")[2] for line in expected}
    assert {"json", "npz", "glb", "obj", "jpg", "safetensors", "pt"} <= kinds
    for number, (hash_seed, workers) in enumerate([("1", 0), ("random", 2), ("random", 3)]):
        assert digests(tmp_path / str(number), hash_seed, workers) == expected
