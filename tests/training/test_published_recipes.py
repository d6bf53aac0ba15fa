"""The published commands on tiny copies of the datasets, with stand-in bodies and small networks.

Both stages train a few steps and save; `evaluate` reads the snapshot. `tests/characterisation` trains the hand network.
"""

import json
from pathlib import Path

import pytest

from i2l_meshnet import cli
from i2l_meshnet.models import checkpoint
from i2l_meshnet.recipes import RECIPES

SMALL = "--backbone resnet18 --crop 32 --imagenet none --batch 4 --workers 0 --no-tensorboard --device cpu".split()


def test_the_body_recipes_train_and_are_evaluated(
    tmp_path: Path, dataset_root: Path, body_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bodies = tmp_path / "output", ["--body-dir", str(body_directory)]
    for name in ("body-lixel", "body-param"):
        first = RECIPES[name][1].first_epoch
        run = ["--end-epoch", str(first + 1), "--out", str(out), "--data", str(dataset_root), *bodies]
        assert cli.main(["train", name, *run, *SMALL]) == 0
        snapshot = out / "model_dump" / f"snapshot_{first}.safetensors"
        metadata = checkpoint.read_metadata(snapshot)
        assert metadata.extra["stage"] == RECIPES[name][1].stage
        assert metadata.extra["step"] >= 1
        assert metadata.licence.startswith("trained with the body ")
    capsys.readouterr()
    result = ["--out", str(out / "result"), "--pictures", "1", "--no-plots", "--root", str(dataset_root), *bodies]
    assert cli.main(["evaluate", "--data", "Human36M", "--weights", str(snapshot), "--stage", "param", *result]) == 0
    printed = capsys.readouterr().out
    assert sum("MPJPE from" in line for line in printed.splitlines()) == 4
    assert "nan" not in printed
    metrics = json.loads((out / "result" / "metrics.json").read_text())
    assert metrics["stage"] == "param"
    assert metrics["samples"] > 0
