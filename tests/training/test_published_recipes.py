"""The published recipes by their commands, on tiny copies of their data sets in the published layout.

Stand-ins take the places of the licensed bodies, the networks are slim. Every recipe takes a few steps and saves;
`evaluate` reads what it saved.
"""

import json
from pathlib import Path

import pytest

from i2l_meshnet import cli
from i2l_meshnet.models import checkpoint
from i2l_meshnet.recipes import RECIPES

SMALL = "--backbone resnet18 --crop 32 --imagenet none --batch 4 --workers 0 --no-tensorboard --device cpu".split()


@pytest.fixture
def places(dataset_root: Path, body_directory: Path) -> dict[str, list[str]]:
    """Where the data and the bodies are, as `train` and `evaluate` want to be told."""
    bodies = ["--body-dir", str(body_directory)]
    return {"train": ["--data", str(dataset_root), *bodies], "evaluate": ["--root", str(dataset_root), *bodies]}


@pytest.mark.parametrize(
    ("recipes", "data", "lines"),
    [
        (("body-lixel", "body-param"), "Human36M", 4),
        pytest.param(("body-smooth",), "PW3D", 2, marks=pytest.mark.slow),
        (("hand-lixel", "hand-param"), "FreiHAND", 0),
    ],
    ids=["body", "smooth", "hand"],
)
def test_a_published_recipe_trains_saves_and_is_evaluated(
    recipes: tuple[str, ...],
    data: str,
    lines: int,
    tmp_path: Path,
    places: dict[str, list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "output"
    for name in recipes:
        first = RECIPES[name][1].first_epoch
        arguments = ["--end-epoch", str(first + 1), "--out", str(out), *places["train"], *SMALL]
        assert cli.main(["train", name, *arguments]) == 0
        snapshot = out / "model_dump" / f"snapshot_{first}.safetensors"
        metadata = checkpoint.read_metadata(snapshot)
        assert metadata.extra["stage"] == RECIPES[name][1].stage
        assert metadata.extra["step"] >= 1
        assert metadata.licence.startswith("trained with the body ")
    stage, result = RECIPES[recipes[-1]][1].stage, out / "result"
    arguments = ["--stage", stage, "--out", str(result), "--pictures", "1", "--no-plots", *places["evaluate"]]
    capsys.readouterr()
    assert cli.main(["evaluate", "--data", data, "--weights", str(snapshot), *arguments]) == 0
    printed = capsys.readouterr().out
    assert sum("MPJPE from" in line for line in printed.splitlines()) == lines
    assert "nan" not in printed
    metrics = json.loads((result / "metrics.json").read_text())
    assert metrics["stage"] == stage
    assert metrics["samples"] > 0
    assert (result / "pred.zip").is_file() == (data == "FreiHAND")
